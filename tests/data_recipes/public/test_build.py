"""Building: what is kept, dropped and broken; the same bytes after a kill; and conversations to train on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_recipes.mixtures import Mixture, Part
from data_recipes.public.base import SourceRow
from data_recipes.public.build import main
from data_recipes.public.built_folder import Built
from data_recipes.public.catalogue import DATA_SETS
from data_recipes.public.manifest import BuildSettings, Manifest
from data_recipes.public.shards import build
from tests.data_recipes.public import miniatures
from tests.data_recipes.public.miniatures import built

ROOT = Path(__file__).parents[3]


def describe(image: Image.Image) -> str:
    """A captioner whose words depend on the picture."""
    return f"A blur of {image.resize((1, 1)).getpixel((0, 0))}."


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def skipped(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in sorted((out / "skipped").iterdir()) for line in path.read_text().splitlines()]


EXPECTED = {  # set: kept, broken, dropped
    "llava_instruct": (3, 2, {"malformed": 1}),
    "llava_onevision": (2, 1, {}),
    "laion_coco_aesthetic": (2, 1, {}),
    "journeydb": (2, 1, {}),
    "cc3m_cc12m": (2, 1, {}),
    "open_images": (2, 1, {}),
    "sa1b": (0, 0, {"no_caption": 3}),
    "megalith": (1, 1, {"no_caption": 1}),
    "imagenet": (2, 1, {}),
    "stylebooth": (1, 1, {}),
    "midjourney_prompts": (2, 0, {"no_caption": 1}),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_set_is_built_and_read_back_and_every_row_is_accounted_for(name: str, tmp_path: Path) -> None:
    rows = built(name, tmp_path)
    manifest = rows.manifest
    assert (manifest.kept, manifest.broken, manifest.dropped) == EXPECTED[name]
    assert manifest.read == manifest.kept + manifest.broken + sum(manifest.dropped.values())
    assert len(skipped(tmp_path / "out")) == manifest.broken + manifest.dropped.get("malformed", 0)
    assert len(rows) == manifest.kept
    rows.verify(pictures=True)
    for number in range(len(rows)):
        row, messages = rows.row(number), rows[number]
        assert [message.role for message in messages] == [message["role"] for message in row["messages"]]
        assert sum(len(message.images) for message in messages) == len(row["images"])


def test_a_built_pair_is_a_row_of_the_published_form(tmp_path: Path) -> None:
    rows = built("imagenet", tmp_path)
    row = rows.row(0)
    assert set(row) == {"id", "messages", "images"}
    assert row["messages"][0]["role"] == "user" and "photo of a tench" in row["messages"][0]["content"]
    assert row["messages"][1] == {"role": "assistant", "content": "A photo of a tench.<image_gen>"}
    user, assistant = rows[0]
    assert user.images == () and assistant.text == "A photo of a tench."
    assert assistant.images[0].image.size == (48, 40)


def test_a_built_edit_sees_one_picture_and_draws_the_other(tmp_path: Path) -> None:
    rows = built("stylebooth", tmp_path)
    user, assistant = rows[0]
    source, target = (tmp_path / f"source/{name}/1.jpg" for name in ("source", "target"))
    for message, path in ((user, source), (assistant, target)):
        assert message.images[0].image.tobytes() == Image.open(path).convert("RGB").tobytes()


def test_pictures_are_written_as_they_came_once_each_and_rare_formats_as_png(tmp_path: Path) -> None:
    whole = miniatures.encoded(miniatures.noise(1))
    members = {"0.jpg": whole, "0.txt": b"one", "1.jpg": whole, "1.txt": b"two",
               "2.png": miniatures.encoded(miniatures.noise(2), "TIFF"), "2.txt": b"three"}  # fmt: skip
    miniatures.archive(tmp_path / "source/0.tar", members)
    rows = built("cc3m_cc12m", tmp_path)
    first, second, third = (rows.row(number)["images"][0] for number in range(3))
    assert first == second and (tmp_path / "out" / first).read_bytes() == whole
    assert third.endswith(".png") and rows[2][1].images[0].image.tobytes() == miniatures.noise(2).tobytes()
    rows.verify(pictures=True)


def test_broken_pictures_and_malformed_rows_are_skipped_by_name(tmp_path: Path) -> None:
    built("llava_instruct", tmp_path)
    assert skipped(tmp_path / "out") == [
        {"row": "2-broken", "picture": "gqa/images/1.jpg", "reason": "damaged: Truncated File Read"},
        {"row": "3-missing", "picture": "ocr_vqa/images/0143034901.jpg", "reason": "there is no such file"},
        {"row": "5-html", "reason": "1 placeholders for 0 pictures"},
    ]


def test_filters_count_what_they_drop_by_name(tmp_path: Path) -> None:
    manifest = built("laion_coco_aesthetic", tmp_path, filters=("aesthetic=5", "short_side=20")).manifest
    assert (manifest.kept, manifest.broken, manifest.dropped) == (1, 1, {"aesthetic": 1})


def test_new_captions_join_the_old_ones_or_replace_them(tmp_path: Path) -> None:
    alone = built("sa1b", tmp_path / "sa1b", describe, captioner="describe")
    assert (alone.manifest.kept, alone.manifest.dropped) == (2, {})
    assert alone[0][1].text.startswith("A blur of (")
    joined = built("imagenet", tmp_path / "joined", describe, captioner="describe")
    assert joined[0][1].text == "A photo of a tench."  # the shorter one
    replaced = built("imagenet", tmp_path / "replaced", describe, captioner="describe", keep_captions=False)
    assert replaced[0][1].text.startswith("A blur of (")


def test_a_captioner_with_nothing_to_say_drops_the_row(tmp_path: Path) -> None:
    manifest = built("sa1b", tmp_path, lambda image: " ", captioner="silent").manifest
    assert (manifest.kept, manifest.broken, manifest.dropped) == (0, 1, {"no_caption": 2})


def test_a_limit_counts_rows_that_are_kept(tmp_path: Path) -> None:
    manifest = built("llava_instruct", tmp_path, limit=3, shard_size=2).manifest
    assert (manifest.kept, manifest.read, manifest.finished) == (3, 5, True)


def write_many(folder: Path) -> None:
    """40 pairs: every seventh is broken, every fifth a copy of the one before."""
    members = {}
    for number in range(40):
        seed = number - 1 if number % 5 == 1 else number
        data = miniatures.BROKEN if number % 7 == 3 else miniatures.encoded(miniatures.noise(seed))
        members |= {f"{number:04d}.jpg": data, f"{number:04d}.txt": f"picture {number}".encode()}
    miniatures.archive(folder / "source/0.tar", members)


MANY = {"filters": ("duplicates", "similar=2", "aspect=3"), "shard_size": 8, "captioner": "describe"}


@pytest.mark.parametrize("call", [1, 5, 9, 13, 20])
def test_a_build_that_was_stopped_ends_with_the_same_bytes(call: int, tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        write_many(tmp_path / name)
    (tmp_path / "source").symlink_to(tmp_path / "whole/source")
    settings = BuildSettings(data_set="cc3m_cc12m", source=str(tmp_path / "source"), **MANY)
    for _ in build(settings, tmp_path / "whole/out", describe):
        pass
    calls = 0

    def interrupted(image: Image.Image) -> str:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return describe(image)

    with pytest.raises(KeyboardInterrupt):
        for _ in build(settings, tmp_path / "stopped/out", interrupted):
            pass
    assert not Manifest.load(tmp_path / "stopped/out").finished
    with pytest.raises(ValueError, match="not finished"):
        Built(tmp_path / "stopped/out")
    for _ in build(settings, tmp_path / "stopped/out", describe):
        pass
    assert files(tmp_path / "stopped/out") == files(tmp_path / "whole/out")
    manifest = Manifest.load(tmp_path / "whole/out")
    assert (manifest.read, manifest.broken, manifest.dropped["duplicates"]) == (40, 6, 6)


KILLED = """
import os, signal
calls = 0
def caption(image):
    global calls
    calls += 1
    if calls == 13 and os.environ.get("KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    return f"A blur of {image.getpixel((0, 0))}."
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as Unix does")
def test_a_process_that_was_killed_is_taken_up_by_the_same_command(tmp_path: Path) -> None:
    write_many(tmp_path)
    (tmp_path / "killed_caption.py").write_text(KILLED)
    command = [sys.executable, "-m", "data_recipes.public.build", "--data-set", "cc3m_cc12m", "--source", "source",
               "--shard-size", "8", "--filter", "duplicates", "--recaption", "killed_caption:caption"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}

    def run(out: str, **extra: str) -> int:
        return subprocess.run([*command, "--out", out], cwd=tmp_path, env=environment | extra, timeout=300).returncode

    assert run("whole") == 0
    assert run("killed", KILL="1") == -signal.SIGKILL
    assert 0 < len(Manifest.load(tmp_path / "killed").shards) < 5
    assert run("killed") == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_finished_build_is_left_alone(tmp_path: Path) -> None:
    built("imagenet", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    built("imagenet", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_other_settings_in_the_same_folder_are_refused_and_named(tmp_path: Path) -> None:
    built("imagenet", tmp_path, limit=1)
    with pytest.raises(ValueError, match="other settings .limit was 1, is 2; seed was 0, is 4.; choose another folder"):
        built("imagenet", tmp_path, limit=2, seed=4)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    miniatures.put(tmp_path / "out/holiday.txt", "mine")
    with pytest.raises(ValueError, match="is not empty and was not built here"):
        built("imagenet", tmp_path)


def test_files_that_were_changed_or_lost_are_found(tmp_path: Path) -> None:
    rows = built("imagenet", tmp_path)
    picture = tmp_path / "out" / rows.row(0)["images"][0]
    picture.write_bytes(picture.read_bytes() + b"x")
    rows.verify()
    with pytest.raises(ValueError, match=f"1 files are missing or differ: {rows.row(0)['images'][0]}"):
        rows.verify(pictures=True)
    (tmp_path / "out/rows/00000.jsonl").unlink()
    with pytest.raises(ValueError, match="rows/00000.jsonl"):
        rows.verify()


def test_rows_are_reached_by_number_over_all_shards(tmp_path: Path) -> None:
    one = built("llava_instruct", tmp_path / "one", shard_size=100)
    many = built("llava_instruct", tmp_path / "many", shard_size=1)
    assert [many.row(n) for n in range(len(many))] == [one.row(n) for n in range(len(one))]
    assert many.row(-1) == many.row(len(many) - 1)
    with pytest.raises(IndexError):
        many.row(len(many))


@pytest.mark.parametrize("fields", [{"limit": 0}, {"shard_size": 0}, {"long_share": 1.5}])
def test_settings_that_make_no_sense_are_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match="1 row or more|0 to 1"):
        BuildSettings(data_set="imagenet", source="x", **fields)


def test_the_manifest_says_whence_and_under_which_licence(tmp_path: Path) -> None:
    built("journeydb", tmp_path)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["data_set"]["commercial"] == "no" and "Terms" in manifest["data_set"]["licence"]
    assert manifest["settings"]["data_set"] == "journeydb" and manifest["finished"]


def test_the_command_builds_and_lists_and_says_what_is_wrong(home: Path, capsys: pytest.CaptureFixture) -> None:
    miniatures.write["imagenet"](home / "imagenet")
    command = ["--data-set", "imagenet", "--source", "imagenet", "--out", "built"]
    assert main(command) == 0
    assert "read 3, kept 2, broken 1" in capsys.readouterr().out
    assert main([*command, "--limit", "1"]) == 2
    assert "limit was None, is 1" in capsys.readouterr().err
    assert main(["--data-set", "imagnet", "--source", "imagenet", "--out", "other"]) == 2
    assert "did you mean 'imagenet'?" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert all(name in capsys.readouterr().out for name in ["journeydb"])
    for wrong in ([], ["--data-set", "imagenet"], [*command, "--replace-captions"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_training_reads_a_mixture_of_built_sets_and_drawn_ones(tmp_path: Path) -> None:
    from data_recipes.storybook.samples import make_sample
    from training.data import BatchSettings, Conversations
    from vargpt.testing import tiny_processor

    parts = {
        "llava": Part.of(built("llava_instruct", tmp_path / "a"), 1.0),
        "imagenet": Part.of(built("imagenet", tmp_path / "b"), 1.0),
        "style": Part.of(built("stylebooth", tmp_path / "c"), 1.0),
        "storybook": Part(lambda number: make_sample(number).messages, 1.0),
    }
    batches = BatchSettings(pool_size=8, batches_per_pool=2, num_workers=0)
    stream = iter(Conversations(Mixture(parts, block=4), tiny_processor(), 21, batches))
    pool = [next(stream), next(stream)]
    assert sum(len(batch["input_ids"]) for batch in pool) == 8
    assert sum(len(batch["drawn_images"]) for batch in pool) >= 4
    assert all((batch["labels"] >= 0).any() for batch in pool)


def test_a_row_whose_caption_holds_a_placeholder_is_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_recipes.public.sets import imagenet

    row = SourceRow(id="1", pictures=(), captions=("an <image> of a fox",))
    monkeypatch.setattr(imagenet, "read", lambda source: iter([row]))
    assert built("imagenet", tmp_path).manifest.dropped == {"malformed": 1}
