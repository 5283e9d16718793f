"""What is typed with a slash, which adapters are switched, and what the page says when something is wrong."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image, ImageDraw

from chat_ui.conversation.marked_region import region_of, share
from chat_ui.conversation.page_settings import (
    ADAPTER_ALL,
    SIZE_AUTO,
    PageSettings,
    adapter_from,
    size_choices,
    size_from,
    sizes_of,
)
from chat_ui.conversation.profiles import adapter_line, profile_named, profiles, shown_adapter, switched
from chat_ui.conversation.slash_commands import BY_NAME, buttons, check, help_text, parse, version_number
from chat_ui.showing.notices import OUT_OF_MEMORY, TOO_BUSY, explanation, set_aside, waiting
from vargpt.chat.scheduler import QueueFullError

# Commands


@pytest.mark.parametrize(
    ("words", "button", "name", "left", "route"),
    [
        ("draw a fox", None, "", "draw a fox", "auto"),
        ("/draw a fox", None, "draw", "a fox", "image"),
        ("a fox", "Draw", "draw", "a fox", "image"),
        (" /ASK how many?\nand where? ", None, "ask", "how many?\nand where?", "text"),
        ("/ask how many?", "Draw", "ask", "how many?", "text"),
        ("", "Undo", "undo", "", "auto"),
        ("/lora", None, "lora", "", "auto"),
        ("/home/me/fox.png: what is it?", None, "", "/home/me/fox.png: what is it?", "auto"),
        ("and/or", None, "", "and/or", "auto"),
    ],
)
def test_a_command_is_typed_or_pressed_and_the_rest_are_the_words(words, button, name, left, route) -> None:
    command = parse(words, button)
    assert (command.name, command.words, command.route) == (name, left, route)


def test_an_unknown_command_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no command /drwa\. Did you mean /draw\? There are /draw, /edit"):
        parse("/drwa a fox")
    with pytest.raises(ValueError, match=r"no command /xyzzy\. There are"):
        parse("/xyzzy")


def test_a_command_that_lacks_something_says_what() -> None:
    with pytest.raises(ValueError, match="no picture to change yet"):
        check(parse("/edit make it sepia"), has_files=False, has_picture=False)
    with pytest.raises(ValueError, match="Say what: for example /draw"):
        check(parse("/draw"), has_files=False, has_picture=True)
    check(parse("/edit make it sepia"), has_files=True, has_picture=False)
    check(parse("/ask"), has_files=True, has_picture=False)
    check(parse("/undo"), has_files=False, has_picture=False)
    assert version_number("#2") == version_number("2") == 2
    with pytest.raises(ValueError, match="Which version"):
        version_number("the second")


def test_adapters_are_offered_only_where_there_are_some_and_help_names_every_command() -> None:
    assert "LoRA" not in [button["id"] for button in buttons()]
    assert "LoRA" in [button["id"] for button in buttons(["robot"])]
    assert all(f"`/{name}" in help_text() for name in BY_NAME)


# Profiles and adapters


def test_there_is_a_profile_for_the_plain_model_and_one_for_each_adapter() -> None:
    assert [(one.name, one.adapter) for one in profiles("nano", [], "hi")] == [("nano", None)]
    with_one = profiles("nano", ["robot"], "hi")
    assert [(one.name, one.adapter) for one in with_one] == [("nano + robot", ("robot",)), ("nano", ())]
    with_two = profiles("nano", ["robot", "crayon"], "hi")
    assert [one.adapter for one in with_two] == [None, ("robot",), ("crayon",), ()]
    assert len({one.name for one in with_two}) == 4
    assert profile_named(with_two, "nano").adapter == ()
    assert profile_named(with_two, "gone") is with_two[0]


def test_lora_switches_by_name_and_says_what_there_is() -> None:
    names = ["robot", "Crayon"]
    assert switched("crayon", names) == ("Crayon",)
    assert (switched("off", names), switched("all", names)) == ((), None)
    with pytest.raises(ValueError, match="no adapter “fox”.*`/lora robot`, `/lora Crayon`, `/lora off`"):
        switched("fox", names)
    with pytest.raises(ValueError, match="vargpt ui --adapter"):
        switched("robot", [])
    assert "**robot, Crayon**" in adapter_line(None, names) and "**none**" in adapter_line((), names)


@pytest.mark.parametrize("adapter", [None, (), ("robot",)])
def test_the_panel_shows_the_adapters_that_are_on(adapter) -> None:
    assert adapter_from(shown_adapter(adapter, ["robot", "crayon"])) == adapter
    assert shown_adapter(None, ["robot"]) == "robot" != ADAPTER_ALL


# Sizes


def test_sizes_come_from_the_model_the_default_first_and_one_size_is_no_choice() -> None:
    config = {"default_size": "64x64", "scale_schedules": {"48x96": [], "64x64": [], "96x48": []}}
    assert sizes_of(config) == [(64, 64), (48, 96), (96, 48)]
    choices = size_choices(sizes_of(config))
    assert list(choices) == [SIZE_AUTO, "64 × 64 · square", "96 × 48 · wide", "48 × 96 · tall"]
    assert [size_from(name) for name in choices] == list(choices.values()) == [None, (64, 64), (48, 96), (96, 48)]
    assert size_choices([(64, 64)]) == {} and sizes_of({}) == []
    with pytest.raises(ValueError, match="The size must be one of the panel's"):
        PageSettings().changed({"size": "huge"})
    assert PageSettings().changed({"size": "96 × 48 · wide"}).changed({"guidance": 2}).size == (48, 96)


# Marked parts


def sent(draw, height: int = 512, mode: str = "RGBA") -> str:
    """What the browser sends after `draw` on a canvas."""
    canvas = Image.new(mode, (512, height))
    draw(ImageDraw.Draw(canvas))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_what_is_marked_on_the_large_copy_is_marked_on_the_picture() -> None:
    mask = region_of(sent(lambda pen: pen.rectangle((128, 256, 255, 511), fill=(91, 82, 224, 255))), (64, 64))
    assert (mask.mode, mask.size, mask.getbbox()) == ("L", (64, 64), (16, 32, 32, 64))
    assert set(mask.getdata()) == {0, 255}
    assert share(mask) == 16 * 32 / 64**2


def test_a_thin_line_is_not_lost_and_a_mask_in_black_and_white_is_taken_too() -> None:
    line = region_of(sent(lambda pen: pen.line((0, 100, 511, 100), fill=(0, 0, 0, 255), width=3)), (64, 64))
    assert line.getbbox() == (0, 12, 64, 13)
    plain = region_of(sent(lambda pen: pen.rectangle((0, 0, 255, 511), fill=255), mode="L"), (32, 64))
    assert plain.getbbox() == (0, 0, 16, 64)


def test_nothing_marked_and_what_is_no_picture_are_told_apart() -> None:
    with pytest.raises(ValueError, match="Nothing is marked"):
        region_of(sent(lambda pen: None), (64, 64))
    for wrong in ("", "data:image/png;base64,%%%", "data:image/png;base64,aGVsbG8=", sent(lambda pen: None, 4096)):
        with pytest.raises(ValueError, match="did not arrive"):
            region_of(wrong, (64, 64))


# Notices


def test_what_goes_wrong_is_told_with_what_to_do() -> None:
    assert explanation(MemoryError()) == OUT_OF_MEMORY and "fewer pictures" in OUT_OF_MEMORY
    assert explanation(QueueFullError("64 requests are waiting already")) == TOO_BUSY
    assert "could not be loaded: no such folder" in explanation(FileNotFoundError("no such folder"))
    assert explanation(ValueError("too long")) == "This could not be answered: too long"
    assert "IndexError: out of range" in explanation(IndexError("out of range"))


def test_who_waits_is_told_how_many_come_before() -> None:
    assert waiting(True, 0) == ""
    assert waiting(True, 1) == "You are next …"
    assert "2 before you" in waiting(True, 3) and "2 before you" in waiting(False, 3)
    assert "being loaded" in waiting(False, 0)


def test_pictures_that_were_set_aside_are_counted() -> None:
    assert set_aside(0) == "" and "oldest picture was" in set_aside(1) and "2 oldest pictures were" in set_aside(2)
