"""Built folders are what training takes: conversations by number, and errors that name the row."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_recipes.public.built_folder import Built, stream
from data_recipes.public.catalogue import DATA_SETS
from tests.data_recipes.public.miniatures import built
from training.data import BatchSettings, Conversations
from vargpt.testing import tiny_processor

WITHOUT_REPLIES = {"midjourney_prompts", "sa1b"}  # prompts only; without captions, no rows
POOL = 4


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name not in WITHOUT_REPLIES])
def test_the_conversations_of_every_set_become_batches(name: str, tmp_path: Path) -> None:
    rows = built(name, tmp_path)
    samples = stream([tmp_path / "out"])
    settings = BatchSettings(pool_size=POOL, batches_per_pool=1, max_drawn=10, num_workers=0)
    batch = next(iter(Conversations(samples, tiny_processor(), 21, settings)))
    assert len(batch["input_ids"]) == POOL >= len(rows)
    assert (batch["labels"] >= 0).any(dim=1).all()
    pictures = [
        (message.role, part) for number in range(POOL) for message in samples(number) for part in message.images
    ]
    drawn = sum(role == "assistant" for role, _ in pictures)
    assert (len(batch["drawn_images"]), len(batch["uploaded_images"])) == (drawn, len(pictures) - drawn)


def test_every_row_comes_once_before_any_comes_again_and_equal_seeds_give_equal_orders(tmp_path: Path) -> None:
    built("llava_instruct", tmp_path / "a")
    built("imagenet", tmp_path / "b")
    folders = [tmp_path / "a/out", tmp_path / "b/out"]

    def order(seed: int, first: int) -> list[str]:
        samples = stream(folders, seed)
        return ["\n".join(message.text for message in samples(first + number)) for number in range(5)]

    only = stream(folders[:1])
    assert len(only) == 3
    epochs = [Counter(only(first + number)[0].text for number in range(3)) for first in (0, 3, 6)]
    assert epochs[0] == epochs[1] == epochs[2] and len(epochs[0]) == 3
    assert order(0, 0) == order(0, 0)
    assert any(order(0, 0) != order(seed, 0) for seed in range(1, 5))


def test_folders_that_nothing_can_be_learnt_from_are_refused(tmp_path: Path) -> None:
    built("midjourney_prompts", tmp_path / "prompts")
    built("sa1b", tmp_path / "empty")
    built("imagenet", tmp_path / "good")
    with pytest.raises(ValueError, match="prompts without replies"):
        stream([tmp_path / "prompts/out"])
    with pytest.raises(ValueError, match="has no rows: its build kept none of 3"):
        stream([tmp_path / "empty/out"])
    with pytest.raises(ValueError, match="named twice"):
        stream([tmp_path / "good/out"] * 2)
    with pytest.raises(FileNotFoundError, match="has no manifest.json"):
        stream([tmp_path / "nowhere"])


def test_a_row_that_was_damaged_after_the_build_is_named(tmp_path: Path) -> None:
    rows = built("imagenet", tmp_path)
    picture = tmp_path / "out" / rows.row(1)["images"][0]
    picture.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"row 1 of .*out cannot be read .*images/.*build it again"):
        rows[1]
    picture.unlink()
    with pytest.raises(ValueError, match="row 1 of .*there is no such file"):
        rows[1]
    lines = (tmp_path / "out/rows/00000.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/rows/00000.jsonl").write_text(lines[0].replace("<image_gen>", "") + lines[1][:30])
    changed = Built(tmp_path / "out")
    with pytest.raises(ValueError, match="row 0 of .*0 placeholders for 1 pictures"):
        changed[0]
    with pytest.raises(ValueError, match="row 1 of .*JSONDecodeError"):
        changed[1]
    shutil.rmtree(tmp_path / "out/rows")
    with pytest.raises(ValueError, match="row 0 of .*FileNotFoundError"):
        Built(tmp_path / "out")[0]
    with pytest.raises(IndexError, match="row 2 of 2"):
        rows[2]
