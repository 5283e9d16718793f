r"""LAION-COCO, aesthetic subset: web pictures with BLIP captions, picked by size, aesthetic score and watermark score.

The set is one parquet file of links. The columns of one row:

    key              "000000017"
    url              "https://example.com/uploads/castle.jpg"
    caption          "a small model castle with some soldiers in it"
    width, height    1024, 768
    aesthetic_score  5.31        the predictor's 1 to 10; the set begins at 4.75
    watermark_score  0.08        the probability of a watermark; the set ends at 0.5

Download the pictures with img2dataset as WebDataset archives, keeping both scores (`--save_additional_columns`). A
sample of an archive is `000000017.jpg`, `000000017.txt` (the caption) and `000000017.json` (the other columns). Or
stream the links from the hub, or from the parquet file: then each picture is fetched when its row is built, and dead
links are counted by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sources import (
    archive_samples,
    folder,
    is_hub_id,
    json_member,
    picture_behind,
    picture_member,
    table,
    text_member,
)

CARD = DataSet(
    name="laion_coco_aesthetic",
    title="LAION-COCO-aesthetic",
    kind="text_to_image",
    homepage="https://huggingface.co/datasets/guangyil/laion-coco-aesthetic",
    hub_id="guangyil/laion-coco-aesthetic",
    licence="Apache-2.0 (links and captions)",
    commercial="unclear",
    commercial_reason="the licence covers the table; every linked picture keeps its owner's rights",
    size="8.56M pairs, a 4 GB table of links; many links are dead by now",
    stage="3",
    files="*.tar of img2dataset, or *.parquet of links",
)
SCORES = {  # our name: the names of the column, the table's own first
    "aesthetic": ("aesthetic_score", "aesthetic", "AESTHETIC_SCORE"),
    "watermark": ("watermark_score", "pwatermark", "watermark"),
}


def read(source: str) -> Iterator[SourceRow]:
    """Rows of the archives if there are any, else of the table of links."""
    if not is_hub_id(source) and any(folder(source, CARD.files).rglob("*.tar")):
        for key, members in archive_samples(Path(source)):
            picture, columns = picture_member(members), json_member(members)
            if picture is not None:  # img2dataset leaves samples without a picture behind for links that failed
                caption = text_member(members) or columns.get("caption") or ""
                yield SourceRow(
                    id=key, pictures=(picture,), captions=(caption,) if caption else (), scores=scores_of(columns)
                )
        return
    for number, row in enumerate(table(source)):
        caption = row.get("caption") or ""
        yield SourceRow(
            id=str(row.get("key") or number),
            pictures=(picture_behind(row["url"]),),
            captions=(caption,) if caption else (),
            scores=scores_of(row),
        )


def scores_of(columns: Mapping[str, Any]) -> dict[str, float]:
    """The scores that the row has."""
    found = {ours: next((columns[name] for name in names if columns.get(name) is not None), None)
             for ours, names in SCORES.items()}  # fmt: skip
    return {name: float(value) for name, value in found.items() if value is not None}
