r"""Midjourney prompts: what people really ask a drawing model for. Prompts only, no pictures.

Parquet files (`data/*.parquet`). The columns that matter of one row:

    prompt   "portrait of an old fisherman, oil on canvas --ar 2:3 --v 5"
    version  "5.0"

Switches (`--ar 2:3`) and links to picture prompts are cut off. A built row is a user turn and nothing else: a prompt
that preference pairs are drawn from (VARGPT-v1.1 takes 100k), or that GRPO samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sources import table

CARD = DataSet(
    name="midjourney_prompts",
    title="Midjourney prompts",
    kind="prompts",
    homepage="https://huggingface.co/datasets/vivym/midjourney-prompts",
    hub_id="vivym/midjourney-prompts",
    licence="Apache-2.0 (as the uploader marks it)",
    commercial="unclear",
    commercial_reason="collected from users of Midjourney, whom nobody asked",
    size="1.27M prompts by the card's count, without pictures",
    stage="dpo",
    files="*.parquet with a column `prompt`",
)
SWITCHES = re.compile(r"(^|\s)(--|—)[a-z].*", re.IGNORECASE | re.DOTALL)  # they stand at the end; "—" is a typed "--"
LINKS = re.compile(r"<?https?://\S+>?")


def clean_prompt(prompt: str) -> str:
    """The words of a prompt: without links to pictures, switches such as `--ar 3:2`, and doubled spaces."""
    words = SWITCHES.sub("", LINKS.sub("", prompt))
    return " ".join(words.split()).strip(" ,")


def read(source: str) -> Iterator[SourceRow]:
    """One row per prompt; what is empty after cleaning has no caption, and is dropped when the set is built."""
    for number, row in enumerate(table(source)):
        prompt = clean_prompt(row.get("prompt") or row.get("text") or "")
        yield SourceRow(id=str(number), captions=(prompt,) if prompt else ())
