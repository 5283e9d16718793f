"""Folders of preferences: of today, of before the archive, and damaged ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vargpt.pictures.preference_rows import ROWS, Preference, PreferenceFolder
from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message

OLDER = Path(__file__).with_name("older_preferences.json")  # written by vargpt before messages had one form on disk


def older_folder(folder: Path) -> Path:
    for name, content in json.loads(OLDER.read_text(encoding="utf-8")).items():
        data = content.encode() if name.endswith((".json", ".jsonl")) else base64.b64decode(content)
        (folder / name).write_bytes(data)
    return folder


def pair() -> Preference:
    layout = ImageLayout(2, 2, ((1, 1), (1, 2)))
    grids = tuple(torch.ones(1, h, w, 2, dtype=torch.bool) for h, w in layout.scales)
    part = ImagePart(Image.new("RGB", (2, 2)), ImageTokens(layout, grids), 3)
    return Preference((Message.of("user", "a cat"),), Message.of("assistant", part), Message.of("assistant", part))


def test_a_folder_of_before_the_archive_is_read_with_the_same_bits_and_continued(tmp_path) -> None:
    folder = PreferenceFolder.existing(older_folder(tmp_path))
    assert folder.tried == {0, 1} and folder.pairs == {0: "replace the fox"}
    row = folder[0]
    assert [message.text for message in (*row.prompt, row.chosen, row.rejected)] == [
        "replace the fox",
        "Done.",
        "Done.",
    ]
    assert row.scores == (1.0, 0.25) and row.prompt[0].images[0].image.size == (3, 2)
    part = row.chosen.images[0]
    assert (part.seed, part.settings) == (7, {"size": [2, 2], "opening": 0, "alternative": 0})
    assert part.image.getpixel((0, 0)) == (100, 0, 9) and part.tokens.layout == ImageLayout(2, 2, ((1, 1), (1, 2)))
    assert part.tokens.flat().tolist() == [[[True, False], [True, False], [False, True]]]
    folder.add(2, pair())
    again = PreferenceFolder(tmp_path)
    assert again.pairs == {0: "replace the fox", 2: "a cat"}
    assert again[1].chosen.images[0].tokens == pair().chosen.images[0].tokens and again[0].rejected.images[0].seed == 8


@pytest.mark.parametrize("suffix", [".png", ".safetensors"])
def test_a_pair_whose_file_is_gone_or_damaged_names_line_and_file(suffix, tmp_path) -> None:
    (tmp_path / "older").mkdir()
    older_folder(tmp_path / "older")
    PreferenceFolder(tmp_path / "today").add(0, pair())
    for folder, name in (("older", f"000000-chosen-1{suffix}"), ("today", f"*{suffix}")):
        [path] = (tmp_path / folder).glob(name)
        for damage in (lambda path: path.write_bytes(b"?"), Path.unlink):
            damage(path)
            with pytest.raises(ValueError, match="prompt 0") as error:
                PreferenceFolder(tmp_path / folder)[0]
            assert path.stem in str(error.value) or suffix == ".safetensors"


def test_a_damaged_line_is_named(tmp_path) -> None:
    (tmp_path / ROWS).write_text('{"number": 0}\n{"number"\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2 is not JSON"):
        PreferenceFolder(tmp_path)
