r"""StyleBooth: pairs of a plain picture and the same picture in some style; VARGPT-v1.1's editing data.

`train.csv` beside the pictures (`stylebooth_dataset.zip`). The header and one row:

    EnStyle,ZhStyle,ShortStyleName,Target:FILE,Source:FILE,SearchResult:DICT
    Bauhaus-Style Poster,包豪斯风格海报,bauhaus,images/target/00012.jpg,images/source/00012.jpg,{...}

The last column (how the pair was found) is not used; it may hold unquoted commas, so cells beyond the header are
ignored. The set has no instructions: they are made of the name of the style.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_recipes.public.base import DRAWN, INPUT, DataSet, PublishedTurn, SourceRow
from data_recipes.public.sources import csv_rows, first_file, folder, picture_at

CARD = DataSet(
    name="stylebooth",
    title="StyleBooth",
    kind="editing",
    homepage="https://huggingface.co/scepter-studio/stylebooth",
    hub_id=None,
    licence="Apache-2.0",
    commercial="yes",
    commercial_reason="Apache-2.0 allows it; the pictures were made with diffusion models, whose own terms may apply",
    size="11,325 pairs, 3.3 GB",
    stage="edit",
    files="train.csv beside the pictures that it names",
)
INSTRUCTIONS = (
    "Turn this picture into {style}.",
    "Redraw it in the style of {style}.",
    "I would like this as {style}, please.",
    "Give the picture the look of {style}.",
    "Change the style to {style} and keep everything else.",
)


def read(source: str) -> Iterator[SourceRow]:
    """One edit per row: the source is seen, the instruction is text, the target is drawn.

    Raises:
        FileNotFoundError: the folder or the table is not there.
        ValueError: the table has other columns.
    """
    path = first_file(folder(source, CARD.files), "train.csv", "*.csv")
    for number, row in enumerate(csv_rows(path)):
        missing = {"EnStyle", "Target:FILE", "Source:FILE"} - set(row)
        if missing:
            raise ValueError(f"{path}, row {number + 1}: no {', '.join(sorted(missing))}; it has {', '.join(row)}")
        names = (row["Source:FILE"].strip(), row["Target:FILE"].strip())
        row_id = f"{number}-{row.get('ShortStyleName', '').strip()}"
        turns = edit_turns(row["EnStyle"].strip(), row_id)
        yield SourceRow(id=row_id, pictures=tuple(picture_at(path.parent, name) for name in names), turns=turns)


def edit_turns(style: str, row_id: str) -> tuple[PublishedTurn, PublishedTurn]:
    """Request and reply; the wording is drawn by the id of the row."""
    instruction = random.Random(f"stylebooth-{row_id}").choice(INSTRUCTIONS).format(style=style)
    return PublishedTurn("user", INPUT + instruction), PublishedTurn(
        "assistant", f"The same picture in the style of {style}.{DRAWN}"
    )
