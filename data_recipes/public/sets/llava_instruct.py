r"""LLaVA-1.5's instruction mixture (665k): questions and answers about COCO, GQA, OCR-VQA, TextVQA and Visual Genome.

The set is one JSON array; the pictures come from their own sites, into folders that the rows name. One row:

    {"id": "000000033471",
     "image": "coco/train2017/000000033471.jpg",
     "conversations": [
        {"from": "human", "value": "<image>\nWhat are the colors of the bus in the image?\nAnswer the question ..."},
        {"from": "gpt", "value": "White and red"},
        {"from": "human", "value": "What feature can be seen on the back of the bus?"},
        {"from": "gpt", "value": "An advertisement"}]}

About 40k rows (from ShareGPT) have no "image" and are plain talk. OCR-VQA pictures are named .jpg in the rows, whatever
their own site names them; those not found are counted as broken, by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from data_recipes.public.base import INPUT, DataSet, PublishedTurn, SourceRow
from data_recipes.public.sources import first_file, folder, json_array, picture_at

if TYPE_CHECKING:
    from vargpt.types import Role

CARD = DataSet(
    name="llava_instruct",
    title="LLaVA-1.5 mix 665k",
    kind="understanding",
    homepage="https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
    hub_id=None,
    licence="CC BY 4.0 (annotations)",
    commercial="unclear",
    commercial_reason="much of the text was written by GPT-4, and the card asks to follow OpenAI's terms; "
    "the pictures keep the terms of their five sources",
    size="665k conversations, 1 GB of text; about 350k pictures",
    stage="2",
    files="llava_v1_5_mix665k.json beside coco/, gqa/, ocr_vqa/, textvqa/ and vg/",
)
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def read(source: str) -> Iterator[SourceRow]:
    """Rows of the JSON file; pictures below the same folder.

    Raises:
        FileNotFoundError: the folder or the file is not there.
    """
    root = folder(source, CARD.files)
    path = first_file(root, "llava_v1_5_mix665k.json", "*.json")
    for number, row in enumerate(json_array(path)):
        name = row.get("image")
        turns = llava_turns(row["conversations"], num_pictures=1 if name else 0)
        pictures = (picture_at(path.parent, name),) if name else ()
        yield SourceRow(id=f"{number}-{row.get('id', '')}", pictures=pictures, turns=turns)


def llava_turns(conversation: Sequence[Mapping[str, str]], num_pictures: int) -> tuple[PublishedTurn, ...]:
    """LLaVA's from/value turns as ours, with a single picture at the very beginning.

    That is where LLaVA itself moves it in training, wherever the row has its placeholder; rows of a picture that never
    name it get one. What a role is called that we do not know is left as it is, and dropped when the set is built.
    """
    turns = [PublishedTurn(cast("Role", ROLES.get(turn["from"], turn["from"])), turn["value"]) for turn in conversation]
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if num_pictures != 1 or first is None or sum(turn.content.count(INPUT) for turn in turns) > 1:
        return tuple(turns)
    turns = [PublishedTurn(turn.role, turn.content.replace(INPUT, "").strip()) for turn in turns]
    turns[first] = PublishedTurn("user", INPUT + turns[first].content)
    return tuple(turns)
