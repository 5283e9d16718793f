"""The commands, end to end: a tiny model saved to disk, real files, exit codes, one clear line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import vargpt.commands.doctor
from tests.chat.scripted import drawing_engine, red_square
from tests.published.published_files import publishable_model, use_tiny_variants, write_published
from vargpt.chat.engine import ChatEngine
from vargpt.commands.cli import app
from vargpt.commands.doctor import examine
from vargpt.commands.draw import parse_size
from vargpt.loading.models import save
from vargpt.pictures.region import box_mask
from vargpt.testing import tiny_model, tiny_processor

runner = CliRunner()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `loading.save` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny_model(), tiny_processor(), folder)
    return folder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ChatEngine:
    """Every command gets an engine that says "ok", draws, and says "!"."""
    engine = drawing_engine()
    monkeypatch.setattr(ChatEngine, "load", lambda *args, **fields: engine)
    return engine


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command gets an engine that says "no" and never draws."""
    engine = drawing_engine(before="no")
    special = engine.processor.special
    extend = engine.model.extend

    def refusing(*args: object, **fields: object) -> object:
        after = extend(*args, **fields)
        after.logits[:, special.gen_start] -= 1e9
        after.logits[:, special.im_end] += 10 * (after.logits.amax() < 1e3)
        return after

    engine.model.extend = refusing
    monkeypatch.setattr(ChatEngine, "load", lambda *args, **fields: engine)


@pytest.fixture(scope="session")
def published_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(publishable_model(), tmp_path_factory.mktemp("published") / "infinity")


@pytest.fixture
def infinity(published_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of published files that only draw, in two tiny variants."""
    use_tiny_variants(monkeypatch)
    return published_files


def run(*arguments: object) -> Result:
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_a_model_folder_draws_the_same_picture_for_the_same_seed(tiny: Path, home: Path) -> None:
    for name in ("one", "two"):
        result = run(
            "draw", "a fox", "--model", tiny, "--device", "cpu", "--seed", 7, "--force", "--out", f"{name}.png"
        )
        assert result.exit_code == 0, result.stderr
        assert f"saved {name}.png (seed 7)" in result.stdout
    with Image.open(home / "one.png") as one, Image.open(home / "two.png") as two:
        assert one.tobytes() == two.tobytes()
        assert one.text["prompt"] == "a fox" and one.text["seed"] == "7" and one.text["model"] == "tiny"
        assert len(one.text["model_hash"]) == 16 and one.text["software"].startswith("vargpt")
        assert json.loads(one.text["settings"])["guidance_scale"] == 2.0


def test_a_script_is_played_with_a_model_folder(tiny: Path, home: Path) -> None:
    red_square().save(home / "red.png")
    turns = [{"text": "draw", "route": "image", "seed": 3}, {"text": "what?", "images": ["red.png"], "route": "text"}]
    (home / "turns.jsonl").write_text("\n".join(map(json.dumps, turns)))
    result = run("chat", "--script", "turns.jsonl", "--out", "out", "--model", tiny, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in (home / "out" / "events.jsonl").read_text().splitlines()]
    assert [line["turn"] for line in lines if line["event"] == "turn_finished"] == [1, 2]
    assert (home / "out" / "turn-1-picture-1.png").is_file()


def test_drawing_several_pictures_numbers_them(scripted: ChatEngine, home: Path) -> None:
    result = run("draw", "a fox", "--n", 3, "--seed", 5, "--size", "32x16", "--temperature", 0, "--out", "fox.png")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in home.glob("*.png")) == ["fox-1.png", "fox-2.png", "fox-3.png"]
    with Image.open(home / "fox-3.png") as image:
        assert image.size == (32, 16) and image.text["seed"] == "7"


def test_a_refusal_prints_its_words_and_exits_with_one_unless_forced(silent: None, home: Path) -> None:
    result = run("draw", "the moon", "--out", "moon.png")
    assert (result.exit_code, result.stdout.strip()[:2]) == (1, "no")
    assert not list(home.glob("*.png"))
    assert run("draw", "the moon", "--out", "moon.png", "--force").exit_code == 0
    assert (home / "moon.png").is_file()


def test_a_file_of_wishes_is_drawn_with_an_index(scripted: ChatEngine, home: Path) -> None:
    (home / "wishes.txt").write_text("a fox\n\na cat\n")
    result = run("draw", "--from", "wishes.txt", "--out", "pictures", "--seed", 1)
    assert result.exit_code == 0, result.stderr
    assert "2 pictures of 2 wishes in pictures" in result.stdout
    assert len((home / "pictures" / "index.jsonl").read_text().splitlines()) == 2


def test_a_model_that_only_draws_is_drawn_with(infinity: Path, home: Path) -> None:
    command = ["draw", "a fox", "--model", infinity, "--variant", "small", "--device", "cpu", "--seed", 7]
    command += ["--size", "432x144", "--top-p", 1]
    for name, more in (("one", []), ("two", []), ("led", ["--negative", "a car"]), ("plain", ["--guidance", 1])):
        result = run(*command, *more, "--out", f"{name}.png")
        assert result.exit_code == 0, result.stderr
        assert f"saved {name}.png (seed 7)" in result.stdout
    pixels = {}
    for name in ("one", "two", "led", "plain"):
        with Image.open(home / f"{name}.png") as image:
            pixels[name], text, size = image.tobytes(), image.text, image.size
        settings = json.loads(text["settings"])
        assert size == (432, 144) and text["prompt"] == "a fox" and text["model"] == "infinity small"
        assert len(text["model_hash"]) == 16 and settings["top_p"] == 1.0 and settings["temperature"] == 0.5
        assert settings["guidance_scale"] == (1.0 if name == "plain" else 3.0), "as published unless given"
        assert settings.get("negative_prompt") == ("a car" if name == "led" else None)
    assert pixels["one"] == pixels["two"] and len(set(pixels.values())) == 3


def test_a_file_of_wishes_is_drawn_by_a_model_that_only_draws(infinity: Path, home: Path) -> None:
    (home / "wishes.txt").write_text("a fox\n\na cat\n")
    vae, encoder = infinity / "vae.pth", infinity / "flan-t5-xl"
    result = run(
        "draw", "--from", "wishes.txt", "--out", "pictures", "--seed", 1, "--n", 2, "--device", "cpu", "--model",
        infinity, "--variant", "sharded", "--vae", vae, "--text-encoder", encoder,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "4 pictures of 2 wishes in pictures" in result.stdout
    lines = [json.loads(line) for line in (home / "pictures" / "index.jsonl").read_text().splitlines()]
    assert [(line["prompt"], line["seed"], len(line["files"])) for line in lines] == [("a fox", 1, 2), ("a cat", 3, 2)]


ONLY_DRAWS = {
    "no variant": (["draw", "a fox", "--model", "{}"], "choose one with --variant: small, sharded"),
    "unknown variant": (["draw", "a fox", "--model", "{}", "--variant", "9b"], "choose one of small, sharded"),
    "size": (
        ["draw", "a fox", "--model", "{}", "--variant", "small", "--size", "64x64"],
        "infinity small draws no pictures of 64x64; choose one of 256x256, ",
    ),
    "missing vae": (
        ["draw", "a fox", "--model", "{}", "--variant", "small", "--vae", "no.pth"],
        "there is no file no.pth, which --vae names",
    ),
    "missing t5": (
        ["draw", "a fox", "--model", "{}", "--variant", "small", "--text-encoder", "./no/t5"],
        "name its folder with --text-encoder",
    ),
    "empty": (["draw", " ", "--model", "{}", "--variant", "small"], "a prompt is empty"),
    "unheard": (
        ["draw", "a fox", "--model", "{}", "--variant", "small", "--negative", "a car", "--guidance", "1"],
        "a negative prompt acts through guidance",
    ),
    "negative chat": (["draw", "a fox", "--negative", "a car"], "nano is a chat model, for which --negative can do"),
    "variant chat": (["draw", "a fox", "--variant", "small"], "nano is a chat model and comes in one size"),
    "chat": (["chat", "--model", "{}"], "vargpt draw PROMPT --model"),
    "ui": (["ui", "--headless", "--model", "{}"], "vargpt draw PROMPT --model"),
    "ask": (["ask", "red.png", "what?", "--model", "{}"], "vargpt draw PROMPT --model"),
    "edit": (["edit", "red.png", "make it blue", "--model", "{}"], "vargpt draw PROMPT --model"),
    "faithful": (
        ["draw", "a fox", "--from", "red.png", "--keep-scales", "1", "--model", "{}", "--variant", "small"],
        "draws from nothing",
    ),
    "hub": (["edit", "red.png", "blue", "--model", "FoundationVision/Infinity"], "--variant NAME (one of small"),
}


@pytest.mark.parametrize("name", ONLY_DRAWS)
def test_a_mistake_with_a_model_that_only_draws_is_one_clear_line(name: str, infinity: Path, home: Path) -> None:
    red_square().save(home / "red.png")
    arguments, problem = ONLY_DRAWS[name]
    result = run(*(argument.format(infinity) for argument in arguments))
    assert result.exit_code == 2, result.stdout
    assert problem in result.stderr and result.stderr.startswith("vargpt: ") and result.stderr.count("\n") == 1


def test_edit_reads_a_picture_and_draws_another(scripted: ChatEngine, home: Path) -> None:
    red_square().save(home / "red.png")
    result = run("edit", "red.png", "make it blue", "--out", "blue.png", "--seed", 1)
    assert result.exit_code == 0, result.stderr
    with Image.open(home / "blue.png") as image:
        assert image.text["prompt"] == "make it blue"


def photo(home: Path) -> np.ndarray:
    """photo.png, 80x60, and its pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / "photo.png")
    return pixels


@pytest.mark.parametrize("mask", ["20,10,40,30", "mask.png", "clear.png"])
def test_edit_changes_a_region_and_no_pixel_outside(mask: str, scripted: ChatEngine, home: Path) -> None:
    before = photo(home)
    box_mask((80, 60), (20, 10, 60, 40)).save(home / "mask.png")
    clear = Image.new("RGBA", (80, 60), (255, 255, 255, 0))
    clear.putalpha(box_mask((80, 60), (20, 10, 60, 40)))
    clear.save(home / "clear.png")
    result = run("edit", "photo.png", "make it blue", "--region", mask, "--faithfulness", 0.5, "--out", "blue.png")
    assert result.exit_code == 0, result.stderr
    with Image.open(home / "blue.png") as image:
        after, settings = np.array(image), json.loads(image.text["settings"])
    assert settings["region"] == [20, 10, 60, 40] and settings["faithfulness"] == 0.5
    assert not np.array_equal(after[10:40, 20:60], before[10:40, 20:60])
    after[10:40, 20:60] = before[10:40, 20:60]
    assert np.array_equal(after, before)


def test_draw_refines_a_picture_and_says_that_its_bits_are_read_off_the_pixels(
    scripted: ChatEngine, home: Path
) -> None:
    photo(home)
    command = ["draw", "a fox", "--from", "photo.png", "--keep-scales", 2, "--n", 2, "--temperature", 1]
    result = run(*command, "--out", "fox.png")
    assert result.exit_code == 0, result.stderr
    assert "2 scales that were kept were read off the pixels" in result.stdout
    with Image.open(home / "fox-1.png") as one, Image.open(home / "fox-2.png") as two:
        assert one.tobytes() != two.tobytes()
        assert json.loads(one.text["settings"])["keep_scales"] == 2


def test_ask_answers_in_words(scripted: ChatEngine, home: Path) -> None:
    red_square().save(home / "red.png")
    result = run("ask", "red.png", "what is it?")
    assert result.exit_code == 0 and result.stdout.startswith("ok")


def test_a_conversation_can_be_piped_in(scripted: ChatEngine, home: Path) -> None:
    result = runner.invoke(app, ["chat", "--seed", "3"], input="draw a fox\n/quit\n")
    assert result.exit_code == 0, result.stderr
    assert (home / "vargpt-pictures" / "draw-a-fox-3.png").is_file()


MISTAKES = {
    "nothing to draw": (["draw"], "say what to draw"),
    "both": (["draw", "a fox", "--from", "note.png"], "say what to draw"),
    "too many": (["draw", "a fox", "--n", "17"], "--n must lie between 1 and 16, got 17"),
    "size": (["draw", "a fox", "--size", "big"], "--size is WIDTHxHEIGHT"),
    "unknown size": (["draw", "a fox", "--size", "33x32"], "choose one of 32x32, 16x16, 32x16"),
    "seed": (["draw", "a fox", "--seed", "-1"], "a seed is a whole number from 0"),
    "top-p": (["draw", "a fox", "--top-p", "1.5"], "top_p must lie in (0, 1]"),
    "guidance": (["draw", "a fox", "--guidance", "nan"], "guidance_scale must be a finite number"),
    "temperature": (["draw", "a fox", "--temperature", "-1"], "temperature must be a finite number"),
    "no number": (["draw", "a fox", "--n", "many"], "--n"),
    "empty": (["draw", "  "], "the last message is empty"),
    "format": (["draw", "a fox", "--out", "fox.jpg"], "saved as PNG"),
    "missing picture": (["ask", "missing.png", "what?"], "there is no file missing.png"),
    "no picture": (["edit", "note.png", "make it red"], "note.png is not a picture"),
    "missing wishes": (["draw", "--from", "missing.txt"], "there is no file missing.txt"),
    "wishes to a file": (["draw", "--from", "wishes.txt", "--out", "fox.png"], "names the folder"),
    "faithfulness": (["edit", "red.png", "x", "--faithfulness", "2"], "--faithfulness must lie between 0 and 1, got 2"),
    "no region": (["edit", "red.png", "x", "--region", "nose"], "--region is the file of a mask, or x,y,w,h"),
    "region outside": (["edit", "red.png", "x", "--region", "90,90,5,5"], "lies outside a picture of 40x40"),
    "broken region": (["edit", "red.png", "x", "--region", "note.png"], "note.png is not a picture"),
    "black region": (["edit", "red.png", "x", "--region", "black.png"], "black everywhere"),
    "region's shape": (["edit", "red.png", "x", "--region", "wide.png"], "the picture has 40x40"),
    "nothing to refine": (["draw", "a fox", "--keep-scales", "2"], "to refine a picture, say what it shows"),
    "no wish to refine": (["draw", "--from", "red.png", "--keep-scales", "2"], "to refine a picture, say what it"),
    "too many scales": (["draw", "a fox", "--from", "red.png", "--keep-scales", "3"], "0 to 2 can be kept"),
    "scales below 0": (["draw", "a fox", "--from", "red.png", "--keep-scales", "-1"], "to refine a picture"),
    "missing script": (["chat", "--script", "missing.jsonl"], "there is no file missing.jsonl"),
    "unknown command": (["paint"], "paint"),
    "unknown option": (["draw", "a fox", "--sed", "3"], "--sed"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line_and_exit_code_two(name: str, scripted: ChatEngine, home: Path) -> None:
    (home / "note.png").write_text("not a picture")
    (home / "wishes.txt").write_text("a fox")
    red_square().save(home / "red.png")
    Image.new("L", (40, 40)).save(home / "black.png")
    Image.new("L", (90, 40), 255).save(home / "wide.png")
    arguments, problem = MISTAKES[name]
    result = run(*arguments)
    assert result.exit_code == 2
    assert problem in result.stderr and "Traceback" not in result.stderr
    if "Usage" not in result.stderr:  # what the parser itself finds comes with the usage
        assert result.stderr.startswith("vargpt: ") and result.stderr.count("\n") == 1


def test_an_unknown_model_folder_is_one_clear_line(home: Path) -> None:
    (home / "empty").mkdir()
    for name, problem in (("no/such/model", "neither a local model directory"), ("empty", "no config.json")):
        for command in (["draw", "a fox"], ["ui", "--headless"]):
            result = run(*command, "--model", name)
            assert result.exit_code == 2 and problem in result.stderr and result.stderr.count("\n") == 1


def test_an_unknown_device_is_one_clear_line(tiny: Path) -> None:
    result = run("draw", "a fox", "--model", tiny, "--device", "abacus")
    assert result.exit_code == 2 and "unknown device 'abacus'" in result.stderr


def test_debug_shows_where_an_error_came_from(home: Path) -> None:
    assert isinstance(run("--debug", "ask", "missing.png", "what?").exception, FileNotFoundError)


def test_the_page_names_its_extra_when_it_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "chainlit", None)
    monkeypatch.setitem(__import__("sys").modules, "chainlit.cli", None)
    result = run("ui", "--headless", "--port", 0)
    assert result.exit_code == 2 and "pip install 'vargpt[ui]'" in result.stderr


def test_sizes_are_given_as_people_write_them() -> None:
    assert parse_size("64x48") == parse_size("64X48") == (48, 64)
    for text in ("64", "x", "64x", "-1x3", "64x64x64"):
        with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
            parse_size(text)


def test_the_doctor_knows_a_model_without_loading_it(tiny: Path) -> None:
    result = run("doctor", "--model", tiny)
    assert result.exit_code == 0, result.stdout
    assert "needs in float32" in result.stdout and "fits here" in result.stdout


def test_the_doctor_says_when_weights_are_missing(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    result = run("doctor", "--model", tmp_path)
    assert result.exit_code == 1 and "its weights are missing" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not JSON"), ("[]", "JSON object"), ('{"model_type": "llama"}', "of type 'llama'")]
)
def test_the_doctor_names_what_is_broken(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    result = run("doctor", "--model", tmp_path)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())


def test_a_missing_nano_is_a_finding_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vargpt.commands.doctor, "default_model_path", lambda: tmp_path)
    (finding,) = [one for one in examine() if one.name == "model"]
    assert finding.ok is False and "make nano" in finding.advice
    assert run("doctor").exit_code == 1


@pytest.mark.parametrize(
    ("options", "packed"),
    [
        (("cpu", "auto", None, False), True),
        (("cpu", "float32", None, False), True),
        (("cpu", "bfloat16", None, False), False),
        (("cpu", "auto", "int8", False), False),
        (("cpu", "auto", None, True), False),
    ],
)
def test_whole_weights_are_packed_on_a_cpu_and_no_others(options, packed, monkeypatch) -> None:
    from vargpt.commands.opening import loading

    monkeypatch.setattr(
        "vargpt.loading.quantization.check_quantization", lambda *_: None
    )  # which asks for bitsandbytes
    assert loading(*options)["packed"] is packed


def test_compiled_weights_are_whole_and_not_packed() -> None:
    from vargpt.commands.opening import loading

    options = loading("cpu", "auto", None, False, compiled=True)
    assert options["compiled"] is True and options["packed"] is False
    assert "compiled" not in loading("cpu", "auto", None, False)
    with pytest.raises(ValueError, match="--compile takes whole weights"):
        loading("cpu", "auto", None, True, compiled=True)


@pytest.mark.parametrize(
    ("command", "given", "count"),
    [
        ("ui", {}, "1000"),
        ("ui", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("ui", {"OMP_WAIT_POLICY": "active"}, "None"),
        ("draw", {}, "None"),
    ],
)
def test_threads_soon_sleep_beside_a_browser_unless_the_user_says_otherwise(command, given, count) -> None:
    code = (
        f"import os, sys; sys.argv = ['vargpt', '{command}', '--help']\n"
        "from vargpt.commands.cli import main\n"
        "assert 'torch' not in sys.modules  # it would have read the variable by now\n"
        "try: main()\n"
        "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=kept | given)
    assert done.stdout.splitlines()[-1] == count, done.stderr


def test_the_shipped_model_draws_without_a_word_of_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vargpt",
        "draw",
        "a fox",
        "--out",
        str(tmp_path / "fox.png"),
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr


def test_the_version_is_told_without_a_command_and_no_command_at_all_shows_the_help() -> None:
    told = runner.invoke(app, ["--version"])
    assert (told.exit_code, told.output.strip()) == (0, f"vargpt {vargpt.__version__}")
    helped = runner.invoke(app, [])
    assert "Usage:" in helped.output and "draw" in helped.output


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "vargpt", "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, f"vargpt {vargpt.__version__}"), done.stderr
