r"""LLaVA-OneVision's single-image data: some ninety subsets, from charts and documents to geometry and captions.

Parquet files, one folder per subset ("config" on the hub). The columns of one row:

    id             "000000033471"
    image          {"bytes": b"\xff\xd8\xff...", "path": "000000033471.jpg"}     (null in rows of plain text)
    conversations  [{"from": "human", "value": "<image>\nWhat is the title of this book?"},
                    {"from": "gpt", "value": "The title is ..."}]
    data_source    "sharegpt4v(coco)"

`--source lmms-lab/LLaVA-OneVision-Data` streams all subsets, `--source "lmms-lab/LLaVA-OneVision-Data:NAME"` one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sets.llava_instruct import llava_turns
from data_recipes.public.sources import hub_configs, is_hub_id, picture_of, table

CARD = DataSet(
    name="llava_onevision",
    title="LLaVA-OneVision (single image)",
    kind="understanding",
    homepage="https://huggingface.co/datasets/lmms-lab/LLaVA-OneVision-Data",
    hub_id="lmms-lab/LLaVA-OneVision-Data",
    licence="Apache-2.0 (the collection); each subset keeps its own",
    commercial="unclear",
    commercial_reason="a collection of some ninety sets whose licences differ, several for research only; "
    "part of the text was written by GPT-4",
    size="about 3.2M conversations; VARGPT-v1.1 used 508k",
    stage="2",
    files="SUBSET/train-*.parquet",
)


def read(source: str) -> Iterator[SourceRow]:
    """Rows of all subsets, one after the other."""
    if is_hub_id(source) and ":" not in source:
        for config in sorted(hub_configs(source)):
            yield from rows(f"{source}:{config}")
    else:
        yield from rows(source)


def rows(source: str) -> Iterator[SourceRow]:
    for number, row in enumerate(table(source)):
        yield to_row(row, number)


def to_row(row: dict[str, Any], number: int) -> SourceRow:
    """One row, with an id made unique by `number`: questions about one picture share the set's own id."""
    row_id = f"{row.get('data_source') or 'onevision'}/{row['id']}-{number}"
    cell = row.get("image")
    pictures = (picture_of(cell, cell.get("path") or row_id),) if cell else ()
    return SourceRow(id=row_id, pictures=pictures, turns=llava_turns(row["conversations"], len(pictures)))
