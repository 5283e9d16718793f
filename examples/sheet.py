"""Draws the first three held-out cases of every drawing category and puts them on one sheet, good or bad.

python examples/sheet.py docs/images/sheet.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from PIL import Image, ImageDraw, ImageFont

from data_recipes.storybook.judging.cases import DrawCategory, draw_cases
from vargpt.chat.engine import ChatEngine
from vargpt.types import ChatRequest, Message

SIDE, TEXT, COLUMNS = 192, 46, 6


def main(path: Path) -> None:
    cases = [case for category in get_args(DrawCategory) for case in draw_cases(category, 3, seed=0)]
    requests = [ChatRequest(messages=(Message.of("user", case.request),), route="image") for case in cases]
    replies = ChatEngine.load().reply_batch(requests)
    rows = -(-len(cases) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 8), rows * (SIDE + TEXT)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (case, reply) in enumerate(zip(cases, replies, strict=True)):
        x, y = number % COLUMNS * (SIDE + 8) + 4, number // COLUMNS * (SIDE + TEXT)
        if reply.message.images:
            sheet.paste(reply.message.images[0].image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        words, lines = case.request.split(), [""]
        for word in words:
            lines[-1:] = [f"{lines[-1]} {word}"] if len(lines[-1] + word) < 32 else [lines[-1], word]
        draw.text((x, y + SIDE + 2), "\n".join(line.strip() for line in lines[:3]), fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
