"""Every public data set, read in its own format: what is said, what is seen and drawn, and what is broken, by name."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_recipes.public import sources
from data_recipes.public.base import BrokenImage, DataSet, SourceRow, decode, misplaced
from data_recipes.public.catalogue import DATA_SETS, recipe
from data_recipes.public.sets.midjourney_prompts import clean_prompt
from data_recipes.public.sets.open_images import photo_of
from tests.data_recipes.public import miniatures


def rows_of(name: str, folder: Path) -> list[SourceRow]:
    miniatures.write[name](folder)
    return list(recipe(name).read(str(folder)))


def said(row: SourceRow) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in row.turns]


def broken(rows: list[SourceRow]) -> list[str]:
    names = []
    for row in rows:
        for picture in row.pictures:
            try:
                decode(picture.load(), picture.name)
            except BrokenImage as error:
                names.append(error.name)
    return names


def test_every_set_has_a_miniature_and_a_module_of_its_name() -> None:
    assert set(miniatures.write) == set(DATA_SETS)
    for name, module in DATA_SETS.items():
        assert module is importlib.import_module(f"data_recipes.public.sets.{name}") and module.CARD.name == name


@pytest.mark.parametrize("card", [pytest.param(module.CARD, id=name) for name, module in DATA_SETS.items()])
def test_every_card_says_where_from_under_which_licence_and_for_what(card: DataSet) -> None:
    texts = {field.name: getattr(card, field.name) for field in dataclasses.fields(card) if field.name != "hub_id"}
    assert [name for name, text in texts.items() if not text.strip()] == []
    assert card.commercial in ("yes", "no", "unclear") and card.homepage.startswith("https://")
    assert card.hub_id is None or re.fullmatch(r"[\w.-]+/[\w.-]+", card.hub_id)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_module_shows_a_row_of_its_set(name: str) -> None:
    assert re.search(r"\n    \S", DATA_SETS[name].__doc__ or "")


@pytest.mark.parametrize("name", DATA_SETS)
def test_ids_are_unique_and_the_same_in_every_run(name: str, tmp_path: Path) -> None:
    rows = rows_of(name, tmp_path)
    assert len({row.id for row in rows}) == len(rows) > 0
    assert [row.id for row in recipe(name).read(str(tmp_path))] == [row.id for row in rows]


def test_llava_questions_become_conversations_with_the_picture_first(tmp_path: Path) -> None:
    rows = rows_of("llava_instruct", tmp_path)
    assert said(rows[0]) == [
        ("user", "<image>What colour is the bus?\nAnswer with one word."),
        ("assistant", "White"),
        ("user", "And what is on the back of it?"),
        ("assistant", "An advertisement"),
    ]
    assert said(rows[1])[0] == ("user", "<image>Where?")
    assert rows[4].pictures == () and said(rows[4])[0] == ("user", "Tell me a joke")
    assert broken(rows) == ["gqa/images/1.jpg", "ocr_vqa/images/0143034901.jpg"]
    assert misplaced(rows[5].turns, 0) == "1 placeholders for 0 pictures"


def test_onevision_rows_come_from_parquet_with_pictures_closed(tmp_path: Path) -> None:
    rows = rows_of("llava_onevision", tmp_path)
    assert said(rows[0]) == [("user", "<image>Read the chart."), ("assistant", "12 %")]
    assert rows[0].id.startswith("chart2text(cauldron)/7") and rows[2].pictures == ()
    assert broken(rows) == ["8.jpg"]


def test_laion_rows_have_captions_and_scores_and_skip_links_that_failed(tmp_path: Path) -> None:
    rows = rows_of("laion_coco_aesthetic", tmp_path)
    assert [dict(row.scores) for row in rows] == [{"aesthetic": score, "watermark": 0.1} for score in (5.9, 4.8, 6.1)]
    assert rows[0].captions == ("a small model castle",)
    assert broken(rows) == ["00000.tar/000000002.jpg"]


def test_laion_links_are_fetched_when_opened_and_dead_ones_are_named(tmp_path: Path, local_site: str) -> None:
    links = [f"{local_site}/alive.jpg", f"{local_site}/dead.jpg", "not a link"]
    rows = [{"key": str(n), "url": url, "caption": "x", "aesthetic_score": 5.0} for n, url in enumerate(links)]
    miniatures.parquet(tmp_path / "laion-coco_v3_filter.parquet", rows)
    assert broken(list(recipe("laion_coco_aesthetic").read(str(tmp_path)))) == links[1:]


@pytest.fixture
def local_site(tmp_path_factory: pytest.TempPathFactory):
    """A web site on this machine with one picture."""
    import functools
    import http.server
    import threading

    folder = tmp_path_factory.mktemp("site")
    (folder / "alive.jpg").write_bytes(miniatures.encoded(miniatures.noise(1)))
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_journeydb_prompts_lose_their_switches_and_captions_join_them(tmp_path: Path) -> None:
    rows = rows_of("journeydb", tmp_path)
    assert rows[0].captions[0] == "a red panda reading, soft light" and rows[0].captions[1].endswith("paper lantern.")
    assert rows[1].captions == ("castle", "Castle.")
    assert broken(rows) == ["001/cc.jpg"]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a fox --ar 16:9 --no text, red-eye", "a fox"),
        ("a fox —v 5", "a fox"),
        ("<https://s.mj.run/abc> a well-known fox,", "a well-known fox"),
        ("a house -- and a fox", "a house -- and a fox"),
        ("--v 4", ""),
    ],
)
def test_a_prompt_is_its_words_alone(prompt: str, words: str) -> None:
    assert clean_prompt(prompt) == words


def test_stylebooth_edits_see_the_source_and_draw_the_target(tmp_path: Path) -> None:
    first, second = rows_of("stylebooth", tmp_path)
    assert [picture.name for picture in first.pictures] == ["source/1.jpg", "target/1.jpg"]
    (user, request), (assistant, reply) = said(first)
    assert (user, assistant) == ("user", "assistant")
    assert request.startswith("<image>") and "Bauhaus-Style Poster" in request
    assert reply.endswith("<image_gen>") and misplaced(first.turns, 2) is None
    assert broken([first, second]) == ["target/2.jpg"]


def test_a_table_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("style,before,after\nx,y,z\n")
    with pytest.raises(ValueError, match="no EnStyle, Source:FILE, Target:FILE; it has style, before, after"):
        list(recipe("stylebooth").read(str(tmp_path)))


def test_conceptual_captions_are_joined_where_tokenising_cut_them(tmp_path: Path) -> None:
    rows = rows_of("cc3m_cc12m", tmp_path)
    assert rows[0].captions == ("a river has burst it's banks and has spread out, onto farmland",)
    assert rows[2].captions == ("actor arrives at the premiere.",)
    assert broken(rows) == ["cc3m-train-0000.tar/000000001.jpg"]


def test_open_images_names_what_people_confirmed_and_adds_narratives(tmp_path: Path) -> None:
    rows = rows_of("open_images", tmp_path)
    assert {row.id: row.captions for row in rows} == {
        "0001": ("a photo with apple and table, wooden",),
        "0002": ("a photo with dog", "In this image I see a dog."),
        "0004": ("a photo with dog",),
    }
    assert broken(rows) == ["0004.jpg"]
    assert photo_of(["A", "B", "B", "C", "D", "E"]) == "a photo with a, b, c and d"


def test_sa1b_pictures_come_without_captions_from_archives_or_unpacked(tmp_path: Path) -> None:
    rows = rows_of("sa1b", tmp_path / "packed")
    assert [row.id for row in rows] == ["sa_1", "sa_2", "sa_3"] and not any(row.captions for row in rows)
    assert broken(rows) == ["sa_000000.tar/./sa_2.jpg"]
    unpacked = tmp_path / "unpacked/sa_000000"
    for row in rows:
        miniatures.put(unpacked / f"{row.id}.jpg", row.pictures[0].load())
    again = list(recipe("sa1b").read(str(tmp_path / "unpacked")))
    assert [row.id for row in again] == [row.id for row in rows]


def test_megalith_takes_captions_where_somebody_has_written_them(tmp_path: Path) -> None:
    rows = rows_of("megalith", tmp_path)
    assert [row.captions for row in rows] == [("A lake between two mountains.",), ("A barn.",), ()]


def test_megalith_links_prefer_the_high_resolution(tmp_path: Path) -> None:
    row = {"url_highres": "https://x.y/a_b.jpg", "url": "https://x.y/a.jpg", "url_source": "https://x.y/photo/a"}
    miniatures.parquet(tmp_path / "data/megalith-00001-of-00010.parquet", [row])
    (only,) = recipe("megalith").read(str(tmp_path))
    assert only.pictures[0].name == "https://x.y/a_b.jpg"


def test_imagenet_classes_become_photos_of_their_first_name(tmp_path: Path) -> None:
    rows = rows_of("imagenet", tmp_path)
    assert [row.captions[0] for row in rows] == ["a photo of a tench"] + ["a photo of an albatross"] * 2
    assert broken(rows) == ["ILSVRC/Data/CLS-LOC/train/n02058221/n02058221_3.JPEG"]


def test_imagenet_labels_of_the_hub_become_the_same_words(tmp_path: Path) -> None:
    import datasets

    label = datasets.ClassLabel(names=["tench, Tinca tinca", "goldfish, Carassius auratus"])
    features = datasets.Features(image=datasets.Image(), label=label)
    cell = {"bytes": miniatures.encoded(miniatures.noise(1)), "path": "n01440764_1.JPEG"}
    miniatures.parquet(tmp_path / "data/train-0.parquet", [{"image": cell, "label": 1}], features)
    (only,) = recipe("imagenet").read(str(tmp_path))
    assert only.captions == ("a photo of a goldfish",)


def test_midjourney_rows_are_prompts_and_nothing_else(tmp_path: Path) -> None:
    rows = rows_of("midjourney_prompts", tmp_path)
    assert [row.captions for row in rows] == [("portrait of an old fisherman, oil on canvas",), ("a well-known",), ()]
    assert not any(row.pictures or row.turns for row in rows)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_source_that_is_not_there_says_what_it_should_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder here; --source takes one that holds"):
        list(recipe(name).read(str(tmp_path / "nothing/like/it")))
    with pytest.raises(FileNotFoundError):
        list(recipe(name).read(str(tmp_path)))


def test_an_unknown_set_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'journeydb'"):
        recipe("journey_db")


def test_hub_ids_and_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    assert sources.is_hub_id("owner/other") and sources.is_hub_id("owner/other:ai2d(gpt4v)")
    assert not sources.is_hub_id("owner/name") and not sources.is_hub_id("/a/b/c") and not sources.is_hub_id("folder")


def test_a_hub_id_is_streamed_with_its_pictures_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []
    features = datasets.Features(jpg=datasets.Image(), txt=datasets.Value("string"), __key__=datasets.Value("string"))
    rows = [{"jpg": {"bytes": miniatures.BROKEN, "path": None}, "txt": "a fox .", "__key__": "000000000"}]

    def load_dataset(*arguments, **settings):
        asked.append((arguments, settings))
        return datasets.Dataset.from_list(rows, features=features).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (row,) = recipe("cc3m_cc12m").read("pixparse/cc3m-wds")
    assert asked == [(("pixparse/cc3m-wds", None), {"split": "train", "streaming": True})]
    assert row.captions == ("a fox.",) and broken([row]) == ["000000000.jpg"]


def test_without_datasets_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"vargpt\[train\]"):
        list(sources.table(str(tmp_path)))


def test_reading_json_in_pieces_gives_what_reading_it_whole_gives(tmp_path: Path, monkeypatch) -> None:
    items = [{"n": n, "text": "]},[{" * (n % 7), "more": {"é": [n] * 3}} for n in range(40)]
    path = tmp_path / "items.json"
    path.write_text(json.dumps(items, ensure_ascii=False, indent=1), encoding="utf-8")
    for length in (1, 7, 100, 1 << 20):
        monkeypatch.setattr(sources, "READ_AHEAD", length)
        assert list(sources.json_array(path)) == items
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(ValueError, match="ends in the middle of an item"):
        list(sources.json_array(path))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    miniatures.cc3m_cc12m(tmp_path)
    path = tmp_path / "cc3m-train-0000.tar"
    data = bytearray(path.read_bytes())
    data[100:140] = b"x" * 40
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"cc3m-train-0000.tar is damaged"):
        list(sources.archive_samples(tmp_path))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_damaged_picture_is_broken_and_nothing_worse(image_format: str) -> None:
    import random

    whole = miniatures.encoded(miniatures.noise(5), image_format)
    rng, outcomes = random.Random(image_format), set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = bytes(data[: rng.randrange(len(data) // 2, len(data) + 1)])
        try:
            image, _ = decode(cut, "it")
            assert image.mode == "RGB"
            outcomes.add("read")
        except BrokenImage as error:
            assert error.name == "it" and "0x" not in error.reason
            outcomes.add("broken")
    assert "broken" in outcomes


def test_a_picture_is_upright_and_what_is_transparent_is_white() -> None:
    sideways = miniatures.noise(1, 30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    sideways.save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue())[0].size == (20, 30)
    clear = miniatures.encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")
    assert decode(clear)[0].getpixel((0, 0)) == (255, 255, 255)
