"""The table of all things of the storybook world, one line each, grouped by category.

A line is `name | plural | glyph | colour | synonyms`. The plural is left out where it is the name plus "s"; `colour` is
the word of the usual look, if one word fits; a `*` after it marks a thing that can be drawn in any of the colours.
Things without a glyph are drawn by code (`shapes.py`). A glyph is a single code point, without variation selector.
"""

from __future__ import annotations

TABLE: dict[str, str] = {
    "animal": """
        dog || 🐶 || doggy, puppy
        cat || 🐱 | yellow | kitty, kitten
        fox | foxes | 🦊 | orange | red fox
        lion || 🦁
        bear || 🐻 | brown | brown bear
        panda || 🐼 || panda bear
        pig || 🐷 | pink | piglet
        cow || 🐮
        rabbit || 🐰 || bunny
        mouse | mice | 🐭
        frog || 🐸 | green | toad
        monkey || 🐵 | brown
        horse || 🐎 | brown | pony
        unicorn || 🦄 | white
        elephant || 🐘
        giraffe || 🦒
        zebra || 🦓
        camel || 🐪
        sheep | sheep | 🐑 | white | lamb
        snake || 🐍 | green | serpent
        lizard || 🦎 | green | gecko
        turtle || 🐢 | green | tortoise
        dinosaur || 🦕 | green | dino
        snail || 🐌
        bee || 🐝 || honeybee
        ladybird || 🐞 | red | ladybug
        butterfly | butterflies | 🦋 | orange*
        spider || 🕷 | black
    """,
    "bird": """
        bird || 🐦 | blue* | little bird
        duck || 🦆
        owl || 🦉 | brown
        penguin || 🐧
        parrot || 🦜
        rooster || 🐓 || cockerel
        chick || 🐥 | yellow | baby chicken
        flamingo || 🦩 | pink
        peacock || 🦚
    """,
    "sea animal": """
        fish | fish | 🐟 | blue*
        shark || 🦈
        whale || 🐳 | blue
        octopus | octopuses | 🐙 | red | squid
        crab || 🦀 | red
    """,
    "plant": """
        tree || 🌳 | green | oak tree
        pine tree || 🌲 | green | fir tree, pine
        palm tree || 🌴 | green | palm
        cactus | cactuses | 🌵 | green
        tulip || 🌷 | pink*
        flower || 🌼 | yellow* | daisy
        rose || 🌹 | red
        mushroom || 🍄 | red* | toadstool
        leaf | leaves | 🍁 | red* | maple leaf
    """,
    "food": """
        apple || 🍎 | red*
        banana || 🍌 | yellow
        lemon || 🍋 | yellow
        pear || 🍐 | green
        cherry | cherries | 🍒 | red
        strawberry | strawberries | 🍓 | red
        bunch of grapes | bunches of grapes | 🍇 | purple | grapes
        watermelon || 🍉 | red | melon
        pineapple || 🍍
        carrot || 🥕 | orange
        aubergine || 🍆 | purple | eggplant
        loaf of bread | loaves of bread | 🍞 || bread, loaf
        cheese | pieces of cheese | 🧀 | yellow | piece of cheese
        pizza || 🍕 || slice of pizza
        burger || 🍔 || hamburger, cheeseburger
        doughnut || 🍩 || donut
        cookie || 🍪 | brown | biscuit
        cake || 🎂 || birthday cake
        ice cream || 🍦 || ice cream cone
        sweet || 🍬 | pink* | candy, bonbon
        lollipop || 🍭
        pumpkin || 🎃 | orange | jack-o'-lantern
    """,
    "vehicle": """
        car || 🚗 | red* | automobile
        bus | buses | 🚌 | blue* | coach
        truck || 🚚 || lorry
        tractor || 🚜 | green*
        train || 🚂 || steam train, locomotive
        bicycle || 🚲 || bike
        plane || ✈ | | airplane, aeroplane
        helicopter || 🚁 | yellow | chopper
        rocket || 🚀 || spaceship
        boat || ⛵ | red* | sailboat, sailing boat
        ship || 🚢 || steamship
    """,
    "building": """
        house || 🏠 | * | home, cottage
        castle || 🏰 || palace
        church | churches | ⛪ || chapel
        tent || ⛺ | orange*
        tower || 🗼 | red
        factory | factories | 🏭
    """,
    "clothing": """
        top hat || 🎩 | black* | hat
        cap || 🧢 | blue* | baseball cap
        shirt || 👕 | blue* | T-shirt
        dress | dresses | 👗 | blue* | gown
        pair of jeans | pairs of jeans | 👖 | blue* | jeans, trousers
        shoe || 👟 || sneaker, trainer
        boot || 👢 | brown*
        scarf | scarves | 🧣 | red*
        crown || 👑 | yellow
        handbag || 👜 | brown* | purse
        backpack || 🎒 | red* | rucksack, schoolbag
    """,
    "instrument": """
        guitar || 🎸 | red* | electric guitar
        drum || 🥁 | red*
        piano || 🎹 || keyboard
        saxophone || 🎷 | yellow | sax
        bell || 🔔 | yellow*
    """,
    "tool": """
        hammer || 🔨
        axe || 🪓 || hatchet
        wrench | wrenches | 🔧 || spanner
        pair of scissors | pairs of scissors | ✂ || scissors
        key || 🔑 | yellow*
        lock || 🔒 | yellow* | padlock
        magnet || 🧲 | red
        ladder || 🪜
        bucket || 🪣 | blue* | pail
        broom || 🧹
        anchor || ⚓ |
        pencil || ✏ | yellow
    """,
    "household": """
        chair || 🪑 | brown*
        sofa || 🛋 | blue* | couch
        light bulb || 💡 | yellow | bulb
        candle || 🕯 | white
        alarm clock || ⏰ | red* | clock
        cup || ☕ | white* | mug, cup of coffee
        teapot || 🫖 | red* | tea kettle
        umbrella || ☂ | purple* | parasol
        book || 📕 | red*
        envelope || ✉ | white | letter
        telephone || ☎ | red* | phone
        television || 📺 || TV, TV set
        camera || 📷 | black
        door || 🚪 | brown*
        gift || 🎁 | red* | present, gift box
        box | boxes | 📦 | brown | cardboard box, package
    """,
    "toy": """
        ball ||| red* | beach ball
        football || ⚽ || soccer ball
        basketball || 🏀 | orange
        balloon || 🎈 | red*
        kite || 🪁
        teddy bear || 🧸 | brown | teddy, stuffed bear
        robot || 🤖
        die | dice | 🎲 | white | cube
        puzzle piece || 🧩 | green* | jigsaw piece
        target || 🎯 || dartboard, bullseye
        snowman | snowmen | ⛄ | white
        ghost || 👻 | white
    """,
    "sky": """
        sun || ☀ | yellow
        moon || 🌙 | yellow* | crescent, crescent moon
        cloud || ☁ | white
        rainbow || 🌈
        lightning bolt || ⚡ | yellow | bolt, lightning
        snowflake || ❄ | blue
        globe || 🌍 || earth
        fire || 🔥 | orange | flame, campfire
        drop || 💧 | blue* | water drop, raindrop
    """,
    "shape": """
        circle ||| red* | disc, round shape
        square ||| blue*
        triangle ||| green*
        star ||| yellow* | five-pointed star
        heart ||| red* | love heart
        diamond ||| purple* | rhombus
        hexagon ||| orange*
        cross | crosses || red* | plus sign, plus
        ring ||| yellow* | hoop
        arrow ||| blue* | arrow pointing right
    """,
}
