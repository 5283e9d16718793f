r"""JourneyDB: 4.4M Midjourney pictures with the prompt that made them and a caption by GPT-3.5.

`data/train/train_anno_realease_repath.jsonl` (the misspelling is the set's own) beside `data/train/imgs/`, from .tgz
archives. One line of the annotations:

    {"img_path": "./095/5d2e...f1.jpg",
     "prompt": "a red panda reading under a paper lantern, soft light --ar 3:2 --v 4",
     "Task2": {"Caption": "A red panda is reading a book in the soft light of a paper lantern."},
     "Task3": {"Style-relevant QA": [{"Question": "...", "Options": {"A": "...", "B": "..."}, "Answer": "A: ..."}],
               "Content-relevant QA": [...]}}

Both texts become captions: the prompt without its switches, and the caption. The questions of Task3 are not used here.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sets.midjourney_prompts import clean_prompt
from data_recipes.public.sources import first_file, folder, json_lines, picture_at

CARD = DataSet(
    name="journeydb",
    title="JourneyDB",
    kind="text_to_image",
    homepage="https://huggingface.co/datasets/JourneyDB/JourneyDB",
    hub_id=None,
    licence="JourneyDB Terms of Usage",
    commercial="no",
    commercial_reason="the terms allow non-commercial research only, and no research that competes with Midjourney",
    size="4.4M pictures, about 1 TB",
    stage="3",
    files="train_anno_realease_repath.jsonl beside imgs/",
)


def read(source: str) -> Iterator[SourceRow]:
    """Rows of the annotations; pictures below `imgs/` beside them.

    Raises:
        FileNotFoundError: the folder or the annotations are not there.
    """
    path = first_file(folder(source, CARD.files), "train_anno*.jsonl", "valid_anno*.jsonl", "*_anno*.jsonl")
    for row in json_lines(path):
        name = row["img_path"].removeprefix("./")
        caption = (row.get("Task2") or {}).get("Caption") or ""
        captions = tuple(text for text in (clean_prompt(row.get("prompt") or ""), caption.strip()) if text)
        yield SourceRow(id=name, pictures=(picture_at(path.parent / "imgs", name),), captions=captions)
