r"""Conceptual Captions, 3M and 12M: web pictures with their alt texts, cleaned (CC3M) or nearly as they are (CC12M).

Google publishes tables of links: CC3M `Train_GCC-training.tsv` (caption, tab, link), CC12M `cc12m.tsv` (link, tab,
caption). What one trains on are WebDataset archives of the pictures (`cc3m-train-0000.tar`), ready-made, or made of the
tables by img2dataset. The members of one sample:

    000000017.jpg    the picture
    000000017.txt    "a river has burst it 's banks and has spread out onto arable farmland alongside"
    000000017.json   {"url": "https://...", "width": 852, "height": 480, ...}        (not in every release)

CC3M's captions are tokenised and have names replaced by words such as "person" and "actor"; `tidy` joins "it 's".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_recipes.public.base import ClosedPicture, DataSet, SourceRow
from data_recipes.public.sources import (
    archive_samples,
    folder,
    is_hub_id,
    picture_member,
    picture_of,
    table,
    text_member,
)

CARD = DataSet(
    name="cc3m_cc12m",
    title="Conceptual Captions 3M and 12M",
    kind="text_to_image",
    homepage="https://huggingface.co/datasets/pixparse/cc12m-wds",
    hub_id="pixparse/cc3m-wds",
    licence="Google's: free for any purpose, as it is",
    commercial="unclear",
    commercial_reason="Google frees the captions; every picture keeps its owner's rights",
    size="2.9M pairs (CC3M) and 11M (CC12M) that could still be downloaded",
    stage="3",
    files="*.tar (WebDataset: jpg, txt)",
)
LOOSE = re.compile(r"\s+('(?:s|re|ve|ll|d|m|t)\b|n't\b|[,.;:!?])")


def read(source: str) -> Iterator[SourceRow]:
    """Rows of the archives, from disk or streamed from the hub."""
    if is_hub_id(source):
        for row in table(source):
            cell = row["jpg"]
            yield to_row(row["__key__"], picture_of(cell, row["__key__"] + ".jpg"), row.get("txt") or "")
        return
    for key, members in archive_samples(folder(source, CARD.files)):
        picture = picture_member(members)
        if picture is not None:
            yield to_row(key, picture, text_member(members))


def to_row(key: str, picture: ClosedPicture, caption: str) -> SourceRow:
    caption = tidy(caption)
    return SourceRow(id=key, pictures=(picture,), captions=(caption,) if caption else ())


def tidy(caption: str) -> str:
    """The caption with what tokenising has cut off joined again: "it 's wet ." becomes "it's wet."."""
    return LOOSE.sub(r"\1", " ".join(caption.split()))
