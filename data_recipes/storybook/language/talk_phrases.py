"""The sentences of small talk, tasks and offers, as tables; `talk.py` makes turns of them."""

from __future__ import annotations

from data_recipes.storybook.splits import Phrases

SMALL_TALK: tuple[tuple[Phrases, str], ...] = (
    (
        Phrases("greeting", ("hello", "hi", "hey", "good morning", "hello there", "hi there", "good evening",
                             "hey there",
                             "hallo", "good day", "greetings", "hi nano", "hello nano", "good afternoon")),
        "Hello! What shall I draw?",
    ),
    (
        Phrases("thanks", ("thanks", "thank you", "thank you very much", "thanks a lot", "great, thanks",
                           "cool, thank you",
                           "many thanks", "thx", "ty", "lovely, thank you", "thanks so much", "cheers",
                           "ok, thanks", "thank you, that's nice", "that was kind of you", "merci")),
        "You are welcome!",
    ),
    (
        Phrases("praise", ("nice", "great", "wow", "that is beautiful", "i like it", "well done", "good job", "awesome",
                           "very nice", "i love it", "cute", "amazing", "looks good", "perfect", "beautiful",
                           "that looks great", "brilliant", "fantastic", "so pretty", "how lovely", "cool")),
        "I am glad you like it!",
    ),
    (
        Phrases("blame", ("that is wrong", "i don't like it", "this is not what i wanted", "bad", "that's ugly",
                          "no, wrong",
                          "that is not right", "hm, not good", "terrible", "i hate it", "you got it wrong",
                          "this looks bad", "not what i asked for", "that's a mistake", "awful")),
        "I am sorry. What shall I change?",
    ),
    (
        Phrases("who", ("who are you?", "what are you?", "what is your name?", "are you a robot?", "introduce yourself",
                        "what's your name?", "tell me about yourself", "are you human?", "who am i talking to?",
                        "are you an ai?")),
        "I am VARGPT nano, a tiny model that draws storybook pictures and talks about them.",
    ),
    (
        Phrases("can", ("what can you do?", "help", "how does this work?", "what are you able to do?",
                        "what can i ask you?",
                        "what can i do here?", "can you help me?", "what do you know?",
                        "how can i use you?", "what can you draw?", "can you draw?", "do you draw?", "can you paint?",
                        "are you able to draw?", "what things can you draw?")),
        "I can draw animals, plants, food, vehicles, toys and shapes, look at pictures and change them. "
        "I am tiny, so my world is small.",
    ),
    (
        Phrases("see", ("can you see pictures?", "can i send you a picture?", "can i upload an image?", "can you see?",
                        "can you look at a photo?", "do you understand images?", "can i show you something?")),
        "Yes, send me a picture and I will say what I see.",
    ),
    (
        Phrases("change", ("can you edit pictures?", "can you change a picture?", "can i change the picture?",
                           "are you able to edit images?", "can you modify an image?",
                           "is it possible to edit a picture?")),
        "Yes, tell me what to change.",
    ),
    (
        Phrases("how are you", ("how are you?", "how are you doing?", "how do you do?", "what's up?",
                                "how is it going?",
                                "are you ok?", "how do you feel?")),
        "I am fine, thank you. What shall I draw?",
    ),
    (
        Phrases("bye", ("bye", "goodbye", "see you", "bye bye", "good night", "see you later", "i have to go", "ciao")),
        "Goodbye!",
    ),
    (
        Phrases("empty", ("...", "?", "ok", "hm", "draw", "yes", "no", "well", "please", "a picture", "paint", "um",
                          "draw it", "test")),
        "What shall I draw?",
    ),
    (
        Phrases("nonsense", ("asdf", "blah blah", "qwerty", "xyz", "lorem ipsum", "hahaha", "foo bar", "la la la",
                             "1234",
                             "!!!")),
        "I do not understand. What shall I draw?",
    ),
)  # fmt: skip
INFORMATION: tuple[tuple[Phrases, str], ...] = (
    (Phrases("colours", ("which colours do you know?", "what colours are there?", "which colours can you use?",
                         "tell me your colours", "what colours can you draw?", "list the colours")), "colours"),
    (Phrases("backgrounds", ("which backgrounds are there?", "what backgrounds can you draw?",
                             "which places do you know?",
                             "what backgrounds do you know?", "list the backgrounds", "where can things be?")),
     "backgrounds"),
    (Phrases("styles", ("which styles are there?", "what styles can you draw in?", "which styles do you know?",
                        "what styles do you have?", "list the styles", "tell me your styles")), "styles"),
    (Phrases("counts", ("how many things can you draw?", "how far can you count?", "what is the most you can draw?",
                        "up to how many can you draw?")), "counts"),
    (Phrases("groups", ("how many kinds of things fit on a page?", "how many different things can you draw at once?",
                        "how many different objects can a picture have?", "how much fits on one page?")), "groups"),
)  # fmt: skip
TASKS = Phrases(
    "task",
    (
        "write a poem", "what is 2 plus 2?", "tell me the news", "write some python code", "tell me a joke",
        "who is the president?", "what is the capital of france?", "translate this into german", "write me a story",
        "what is the weather like?", "solve x + 3 = 5", "write an essay about history", "sing a song",
        "how do i cook rice?", "what is the meaning of life?", "what is the square root of 16?",
        "summarise this article", "who won the match?", "give me financial advice", "explain quantum physics",
        "what time is it now?", "write a letter to my boss", "how old is the earth?", "play a game with me",
        "fix my code", "when was napoleon born?", "recommend a film", "book a flight", "what is 12 times 7?",
        "write a haiku about spring", "how tall is mount everest?", "make a video", "call my mother",
        "what is the best phone?", "do my homework", "tell me a fairy tale", "how many people live in china?",
        "spell banana backwards", "what day is it today?", "search the internet", "who wrote hamlet?",
        "compute 15 minus 8", "why is the sky blue?", "write a shell script", "give me a recipe for soup",
        "speak french", "what is love?", "set a timer", "read me the news", "how far is the moon?",
        "order a pizza for me", "how do i get to the station?", "what is on television tonight?", "write a song",
        "who invented the telephone?", "count to one hundred", "how much is a ticket?", "remind me tomorrow",
        "what does this word mean?", "write a speech for a wedding", "how do i lose weight?", "who is the richest man?",
        "translate good morning", "what is 100 divided by 4?", "tell me a riddle", "how do i tie a tie?",
        "which team is the best?", "check my spelling", "write a cover letter", "what is the speed of light?",
        "open the browser", "send an email to anna", "what are the news of today?", "how old are you?",
        "who painted the mona lisa?", "convert 5 miles to kilometres", "give me a list of countries",
        "what is a prime number?", "plan my holiday", "is it going to rain?", "how do computers work?",
        "prove that the root of two is irrational", "rewrite this sentence", "what should i eat today?",
        "make a table of my expenses", "who was the first man on the moon?", "teach me spanish", "turn off the light",
    ),
)  # fmt: skip
# the same about a thing of our world, which is no reason to draw it
TASKS_ABOUT = Phrases(
    "task about",
    (
        "write a poem about {a}", "tell me a story about {a}", "what do {many} eat?", "where do {many} come from?",
        "how much does {a} cost?", "how heavy is {a}?", "write a song about {many}", "how do i make {a}?",
        "who invented {many}?", "tell me a joke about {a}", "why do people like {many}?", "how do you spell {bare}?",
        "what does {bare} mean?", "where can i buy {a}?", "translate {bare} into french", "explain {many} to me",
        "how long does {a} live?", "what is the history of {many}?", "write a text about {many}",
        "give me facts about {many}", "are {many} dangerous?", "how old can {a} get?",
    ),
)  # fmt: skip
AFFIRMATIONS = Phrases(
    "yes",
    ("yes please", "yes", "ok", "sure", "yes, do that", "please do", "go ahead", "yeah", "why not", "all right",
     "ok, fine",
     "yes, that would be nice", "sounds good", "yep", "of course", "good idea", "do it", "fine",
     "yes, go on", "that works", "ok, please", "sure, thanks", "yes, draw it", "i would like that", "absolutely",
     "that's fine", "ok then", "yes thanks", "y", "yup", "if you like", "let's do that", "okay", "yes, why not",
     "please", "that is ok", "alright", "definitely", "gladly", "sure, go ahead", "mhm", "that would be great",
     "oh yes", "perfect, do that", "yes, i would", "good, go on", "good, do it", "ok, go on", "please go on",
     "good, please", "well, yes", "yes, good", "do so", "please do it", "that's good", "great, do it", "go on",
     "go on please", "very well", "agreed", "let's do it", "fine with me", "that is fine", "ok good"),
)  # fmt: skip
DECLINES = Phrases(
    "no", ("no", "no thanks", "no, thank you", "rather not", "nope", "no, something else", "not really", "never mind")
)
