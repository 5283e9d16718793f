"""Messages on disk: what is read is what was written, what is damaged is named, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from vargpt.pictures.archive import LOST_PICTURE, Archive, NewerFormatError, UnsavableError, write_whole
from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message, TextPart

LAYOUT = ImageLayout(16, 32, ((1, 2), (2, 4)), position_grid=(4, 8))


def drawn(dtype: torch.dtype = torch.bool, seed: int = 7) -> ImagePart:
    generator = torch.Generator().manual_seed(seed)
    grids = tuple((torch.randn(1, h, w, 3, generator=generator) * 5).to(dtype) for h, w in LAYOUT.scales)
    image = Image.linear_gradient("L").resize((32, 16)).convert("RGB")
    return ImagePart(image, ImageTokens(LAYOUT, grids), seed, {"size": [16, 32], "faithfulness": 0.5})


def written_and_read(archive: Archive, value):
    return archive.read(json.loads(json.dumps(archive.write(value))))


def one_of(folder: Path, suffix: str) -> Path:
    [path] = folder.glob(f"*{suffix}")
    return path


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool, torch.bfloat16])
def test_messages_come_back_with_words_pixels_exact_tokens_seeds_and_settings(dtype, tmp_path) -> None:
    part = drawn(dtype)
    unfinished = replace(part, tokens=replace(part.tokens, known=torch.rand(1, 2, 4) > 0.5), seed=None)
    message = Message("assistant", (TextPart("A fox – “quoted”."), part, unfinished))
    restored = written_and_read(Archive(tmp_path), (message, message))
    one, same = restored.value
    assert one is same and (one.role, one.text) == ("assistant", message.text)
    for mine, theirs in zip(message.images, one.images, strict=True):
        assert mine.image.tobytes() == theirs.image.tobytes() and mine.tokens == theirs.tokens
        assert theirs.tokens.grids[1].dtype == dtype and (mine.seed, mine.settings) == (theirs.seed, theirs.settings)
    assert (restored.lost, restored.unknown) == ((), ())


def test_a_picture_is_written_once_however_often_it_is_saved(tmp_path) -> None:
    archive = Archive(tmp_path)
    document = archive.write(Message.of("user", drawn()))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 2 and archive.write(Message.of("user", drawn())) == document
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", [".png", ".safetensors"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_missing_or_damaged_file_is_named_and_costs_only_its_picture(suffix, is_there, tmp_path) -> None:
    archive = Archive(tmp_path)
    document = archive.write(Message.of("assistant", "A fox.", drawn(), "And more."))
    path = one_of(tmp_path, suffix)
    path.write_bytes(b"not any more")
    if not is_there:
        path.unlink()
    restored = archive.read(document)
    assert restored.value.parts == (TextPart("A fox."), LOST_PICTURE, TextPart("And more."))
    assert len(restored.lost) == 1 and str(path) in restored.lost[0]


@dataclass(frozen=True)
class Note:
    message: Message
    lock: object = None


def test_only_the_kinds_that_an_archive_was_told_of_are_written_and_read(tmp_path) -> None:
    note = Note(Message.of("user", "a fox"), lock=object())
    document = Archive(tmp_path, (Note,)).write(note)
    assert Archive(tmp_path, (Note,)).read(document).value == replace(note, lock=None), "locks are left out"
    with pytest.raises(TypeError, match="Note is not among the kinds"):
        Archive(tmp_path).write(note)
    with pytest.raises(ValueError, match="holds a Note, which this version"):
        Archive(tmp_path).read(document)
    with pytest.raises(UnsavableError, match="a object cannot be saved"):
        Archive(tmp_path).write(object())


@pytest.mark.parametrize("damaged", [[1], {"format": 1}, {"format": 1, "objects": [], "top": {"object": 3}},
                                     {"format": 1, "objects": [{"is": "TextPart", "fields": {}}], "top": None},
                                     {"format": 1, "objects": [], "top": {"picture": "nowhere.png"}}])  # fmt: skip
def test_a_damaged_document_is_one_clear_error(damaged, tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot be understood|lacks text|cannot be read"):
        Archive(tmp_path).read(damaged)


def test_a_document_of_a_newer_program_is_told_apart(tmp_path) -> None:
    with pytest.raises(NewerFormatError, match="format 99, not 1"):
        Archive(tmp_path).read({"format": 99})


def test_a_document_cannot_name_a_file_outside_of_the_folder(tmp_path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ValueError, match="not the name of a file"):
            Archive(tmp_path / "talk").read({"format": 1, "objects": [], "top": {"picture": name}})


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a" / "file"
    write_whole(path, b"before")
    assert path.stat().st_mode & 0o077 == 0, "for this user alone, unless said otherwise"
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"after")
    assert [entry.name for entry in path.parent.iterdir()] == ["file"] and path.read_bytes() == b"before"
