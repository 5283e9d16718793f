"""Makes 20 pictures with captions to finetune on: a thing, or a style, that the shipped nano does not know.

python examples/own_pictures.py lighthouse my_pictures
vargpt finetune my_pictures --name lighthouse --judge data_recipes.storybook.judging.newcomers:is_lighthouse

python examples/own_pictures.py plum my_style
vargpt finetune my_style --style plum --judge data_recipes.storybook.judging.newcomers:is_plum
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from data_recipes.storybook.judging.newcomers import lighthouse_picture, plum_picture

COUNT = 20
PAGES = {"lighthouse": lighthouse_picture, "plum": plum_picture}


def main(what: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(COUNT):
        picture, caption = PAGES[what](number)
        picture.save(folder / f"{what}_{number:02d}.png")
        rows.append({"file": f"{what}_{number:02d}.png", "caption": caption})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
