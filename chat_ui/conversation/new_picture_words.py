"""Whether words ask for a picture of its own or for a change of the one that is there: where it stands in the tree.

In: words. Out: yes or no. The model reads the same either way; in doubt it is a change, which loses no line of the
tree. English only, like the model that is shipped.
"""

from __future__ import annotations

import re

NOUN = r"(?:picture|image|drawing|illustration|painting|sketch|watercolou?r)"
ASKS = re.compile(
    r"\b(?:draw|drawing|paint|painting|sketch|illustrate|create|generate|imagine|render|surprise me|show me|make me)\b"
    r"|\b(?:see|want|give me|(?:i'd|would) like) (?!the\b|it\b|to\b)"
    rf"|\b(?:design an?|a {NOUN}|random {NOUN}|{NOUN} (?:of|with|showing))\b|\b{NOUN}:"
)
# What points back to a picture that is there already, or begins like a change to it.
POINTS_BACK = re.compile(
    r"\b(?:its?|them|they|this|that|these|those|same|too|also|as well|instead|in place|another|more|less|fewer|don't"
    r"|again|back|usual|normal|existing|current|previous|original)\b"
    r"|\b(?:draw|drawing|paint|painting|show me) (?:in |over )?the\b|\bdraw in an?\b"
    r"|^(?:now |please |and |can you |could you )*(?:give the|make the|"
    r"(?:add|put|remove|delete|erase|replace|change|swap|switch|turn|move|let|without|rub|take)\b)"
)


def asks_for_a_new_picture(words: str, is_drawing: bool = False) -> bool:
    """Whether a picture that answers these words is made from no other.

    Args:
        words: what was typed.
        is_drawing: "draw" was said by a button or a command, and the words go on from there.
    """
    said = " ".join(words.lower().split())
    return bool(ASKS.search(f"draw {said}" if is_drawing else said)) and not POINTS_BACK.search(said)
