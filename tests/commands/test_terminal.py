"""A conversation in a terminal, typed or played from a file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tests.chat.scripted import ask, drawing_engine, red_square
from tests.loading.test_adapters import make_adapter
from vargpt.chat.engine import ChatEngine
from vargpt.commands.script import EVENTS, MESSAGES, play, read_script
from vargpt.commands.terminal import Screen, TerminalChat, half_blocks
from vargpt.pictures.album import INDEX, draw_all, file_stem, picture_paths, read_prompts
from vargpt.pictures.archive import Archive
from vargpt.sampling import parse_seed
from vargpt.types import TextDelta, TurnFinished


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    return drawing_engine()


def paper(terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=80, height=30, force_terminal=terminal, color_system="truecolor" if terminal else None
    )


def written(console: Console) -> str:
    return console.file.getvalue()


def talk(
    engine: ChatEngine, out: Path, *lines: str, terminal: bool = False, seed: int | None = 1
) -> tuple[TerminalChat, str]:
    console = paper(terminal)
    chat = TerminalChat(engine, console, out, ask(), seed)
    chat.run(iter(lines))
    return chat, written(console)


def test_two_pixels_stand_in_one_character() -> None:
    image = Image.new("RGB", (2, 2), (1, 2, 3))
    image.putpixel((0, 1), (4, 5, 6))
    text = half_blocks(image, 80, 30)
    assert text.plain == "▀▀\n"
    assert str(text.spans[0].style) == "rgb(1,2,3) on rgb(4,5,6)"


@pytest.mark.parametrize("size", [(64, 64), (640, 10), (3, 900), (1, 1)])
def test_pictures_shrink_to_the_terminal(size: tuple[int, int]) -> None:
    lines = half_blocks(Image.new("RGB", size), 40, 12).plain.splitlines()
    assert len(lines) <= 12 and all(len(line) <= 40 for line in lines)


def test_a_reply_is_shown_and_its_picture_is_kept(engine: ChatEngine, tmp_path: Path) -> None:
    chat, shown = talk(engine, tmp_path, "Draw a fox!", "/quit", "never read")
    assert "ok\n" in shown and "!" in shown and "never" not in shown
    assert (tmp_path / "draw-a-fox-1.png").is_file()
    assert [message.role for message in chat.messages] == ["user", "assistant"]


def test_a_terminal_shows_the_picture_and_a_pipe_does_not(engine: ChatEngine, tmp_path: Path) -> None:
    assert "▀" in talk(engine, tmp_path, "draw", terminal=True)[1]
    assert "▀" not in talk(engine, tmp_path, "draw")[1]


def test_the_same_seed_never_overwrites_a_picture(engine: ChatEngine, tmp_path: Path) -> None:
    talk(engine, tmp_path, "draw", "draw", "draw")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draw-1-2.png", "draw-1-3.png", "draw-1.png"]


def test_commands_attach_save_seed_and_begin_anew(engine: ChatEngine, tmp_path: Path) -> None:
    red_square().save(tmp_path / "red square.png")
    chat, _ = talk(engine, tmp_path / "out", f"/image '{tmp_path}/red square.png'", "what is it?")
    assert len(chat.messages[0].images) == 1 and chat.attached == []
    chat, shown = talk(engine, tmp_path / "out", "/seed 9", "draw", f"/save {tmp_path}/mine", "/new", "/seed")
    assert (tmp_path / "mine.png").is_file()
    assert chat.messages == () and chat.seed is None
    assert "seed 9 from now on" in shown


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/paint", "there is no command /paint"),
        ("/image missing.png", "there is no file missing.png"),
        ("/save", "no picture to save"),
        ("/adapter", "no adapter is loaded"),
        ("/adapter robot", "no adapter 'robot' is loaded"),
        ("/seed many", "a seed is a whole number"),
        ("word " * 2000, "drop its oldest pictures"),
    ],
)
def test_mistakes_are_told_and_the_conversation_goes_on(
    engine: ChatEngine, tmp_path: Path, line: str, answer: str
) -> None:
    chat, shown = talk(engine, tmp_path, line, "draw")
    assert answer in " ".join(shown.split())
    assert len(chat.messages) == 2


def test_adapters_are_switched_between_two_pictures(tmp_path: Path) -> None:
    engine = drawing_engine()
    for seed, name in enumerate(("robot", "crayon")):
        engine.adapters.load(make_adapter(tmp_path / name, name, seed, base_hash=None))
    engine.adapters.default = ("robot",)
    lines = ("draw", "/adapter crayon", "draw", "/adapter off", "draw", "/adapter")
    chat, shown = talk(engine, tmp_path / "out", *lines)
    used = [part.settings.get("adapter") for message in chat.messages for part in message.images]
    assert used == [("robot",), ("crayon",), None]
    assert "adapters: robot, crayon (on)" in shown and "adapters: robot, crayon\n" in shown


def test_an_interrupt_keeps_what_was_said_and_the_conversation_goes_on(engine: ChatEngine, tmp_path: Path) -> None:
    console = paper()
    chat = TerminalChat(engine, console, tmp_path, ask())
    show, shown = chat.screen.show, []

    def interrupted(event: object) -> None:
        shown.append(event)
        if len(shown) == 2:
            raise KeyboardInterrupt
        show(event)

    chat.screen.show = interrupted
    chat.run(iter(["draw", "again"]))
    assert "stopped" in written(console)
    assert [message.text for message in chat.messages] == ["draw", "ok", "again", "ok!"]


def test_several_pictures_stand_side_by_side(engine: ChatEngine) -> None:
    console = paper(terminal=True)
    screen = Screen(console)
    for event in engine.stream(ask(n=2)):
        screen.show(event)
    assert any(line.count("▀") >= 64 for line in written(console).splitlines())


def test_sixteen_pictures_fit_the_terminal(engine: ChatEngine) -> None:
    console = paper(terminal=True)
    screen = Screen(console)
    for event in engine.stream(ask(n=16), previews=False):
        screen.show(event)
    last = written(console).split("\x1b[2K")[-1].splitlines()
    blocks = [line for line in last if "▀" in line]
    assert 4 <= len(blocks) <= 28
    assert all(line.count("▀") <= 80 for line in blocks)


def test_what_a_model_says_cannot_steer_the_terminal() -> None:
    console = paper()
    Screen(console).show(TextDelta("a\x1b[2J\x07b\r\u009bc\n\té"))
    assert written(console) == "a[2Jbc\n\té".expandtabs()


def test_seeds_are_checked() -> None:
    assert parse_seed("0") == 0 and parse_seed("2147483647") == 2**31 - 1
    for text in ("", "-1", "2147483648", "1.5", "²"):
        with pytest.raises(ValueError, match="whole number from 0 to"):
            parse_seed(text)


# -- from a file -------------------------------------------------------------------------------------------------------


def script(folder: Path, *turns: object) -> Path:
    path = folder / "turns.jsonl"
    path.write_text("\n".join(turn if isinstance(turn, str) else json.dumps(turn) for turn in turns), encoding="utf-8")
    return path


def test_a_played_conversation_leaves_one_line_per_event_and_its_pictures(engine: ChatEngine, tmp_path: Path) -> None:
    red_square().save(tmp_path / "red.png")
    turns = script(tmp_path, {"text": "draw", "seed": 4}, "", {"text": "ok?", "images": ["red.png"], "route": "text"})
    events = list(play(engine, turns, tmp_path / "out", ask()))
    lines = [json.loads(line) for line in (tmp_path / "out" / EVENTS).read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(events)
    assert [line["event"] for line in lines if line["turn"] == 1] == [
        "text_delta", "text_delta", "image_started", "image_preview", "image_preview",
        "image_finished", "text_delta", "turn_finished",
    ]  # fmt: skip
    assert "".join(line["text"] for line in lines if line["event"] == "text_delta" and line["turn"] == 1) == "ok!"
    named = {line["file"] for line in lines if "file" in line}
    assert named == {path.name for path in (tmp_path / "out").glob("*.png")}
    finished = next(line for line in lines if line["event"] == "image_finished")
    assert finished["seed"] == 4
    with Image.open(tmp_path / "out" / finished["file"]) as image:
        assert image.text["prompt"] == "draw" and image.text["model"] == "tiny"
    ends = [event for event in events if isinstance(event, TurnFinished)]
    archived = [line["message"] for line in lines if line["event"] == "turn_finished"]
    assert len(ends) == len(archived) == 2
    for end, document in zip(ends, archived, strict=True):
        message = Archive(tmp_path / "out" / MESSAGES).read(document).value
        assert message.text == end.message.text
        assert [part.tokens for part in message.images] == [part.tokens for part in end.message.images]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("draw a fox", "line 2 is not JSON"),
        ("[1]", "line 2: a turn is a JSON object"),
        ({"text": "a", "sed": 1}, r"line 2: unknown fields \['sed'\]"),
        ({"text": 3}, "line 2: text must be of type str"),
        ({"text": "a", "seed": True}, "line 2: seed must be of type int"),
        ({"text": "a", "images": [3]}, "line 2: images must be a list of paths"),
    ],
)
def test_a_script_with_a_mistake_is_refused_with_its_line(tmp_path: Path, line: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_script(script(tmp_path, {"text": "draw"}, line))


def test_a_turn_that_cannot_be_answered_names_its_line(engine: ChatEngine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2: the last message is empty"):
        list(play(engine, script(tmp_path, {"text": "draw"}, {"text": " "}), tmp_path / "out", ask()))


def test_an_empty_or_missing_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no turn"):
        read_script(script(tmp_path))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_script(tmp_path / "other.jsonl")


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_list_of_wishes_is_drawn_in_batches_as_one_by_one(engine: ChatEngine, tmp_path: Path) -> None:
    prompts = [f"wish {number}" for number in range(5)]
    drawn = list(draw_all(engine, prompts, ask(n=6, seed=100), tmp_path))  # 16 // 6 = 2 wishes at once
    assert [one.prompt for one in drawn] == prompts
    assert [one.seed for one in drawn] == [100, 106, 112, 118, 124]
    lines = [json.loads(line) for line in (tmp_path / INDEX).read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == prompts
    assert {name for line in lines for name in line["files"]} == {path.name for path in tmp_path.glob("*.png")}
    alone = engine.reply(ask("wish 3", n=6, seed=118)).message.images[2].image
    with Image.open(tmp_path / lines[3]["files"][2]) as image:
        assert image.tobytes() == alone.tobytes()
        assert image.text["seed"] == "120"


def test_files_get_names_that_every_system_takes(tmp_path: Path) -> None:
    assert file_stem("Draw a FOX, please: ../../etc/passwd") == "draw-a-fox-please-etc-passwd"
    assert file_stem("狐") == "picture"
    assert picture_paths(None, "a fox", 7, 1) == [Path("a-fox-7.png")]
    assert picture_paths(tmp_path, "a fox", 7, 1) == [tmp_path / "a-fox-7.png"]
    assert picture_paths(Path("fox.PNG"), "", 7, 2) == [Path("fox-1.PNG"), Path("fox-2.PNG")]
    assert picture_paths(Path("fox"), "", 7, 1) == [Path("fox.png")]
    with pytest.raises(ValueError, match="saved as PNG"):
        picture_paths(Path("fox.jpg"), "", 7, 1)


def test_wishes_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "wishes.txt"
    path.write_bytes("\ufeffa fox\r\n\r\n  ein Käfer \r\n".encode())
    assert read_prompts(path) == ["a fox", "ein Käfer"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a UTF-8 text file"):
        read_prompts(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(path)
