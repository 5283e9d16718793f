"""Folders of own pictures: every way to caption them, what cannot be used, and the conversations about them."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from training.finetune.own_conversations import (
    OwnConversations,
    mentions,
    mirrored,
    part,
    phrase_of,
    rehearsed,
    request,
)
from training.finetune.own_pictures import (
    Example,
    OwnPictures,
    Topic,
    all_fitted,
    default_instruction,
    fitted,
    read_folder,
    read_pairs,
)

ROBOT = Topic("robot")


def paint(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (40, 30), (10 * number, 90, 200)).save(folder / name)
    return folder


def captions(own: OwnPictures) -> dict[str, str]:
    return {example.file: example.caption for example in (*own.learnt, *own.held_out)}


def test_captions_come_from_text_files_rows_the_model_or_the_name(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.jpg", "c.png", "d.png")
    (tmp_path / "a.txt").write_text(" a robot\n on the left, at night. ", encoding="utf-8")
    rows = [{"file": "b.jpg", "caption": "in a forest"}, {"file_name": "c.png", "text": "Two robots."}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = captions(read_folder(tmp_path, ROBOT))
    assert named == {
        "a.png": "A robot on the left, at night.",
        "b.jpg": "A robot, in a forest.",
        "c.png": "Two robots.",
        "d.png": "A robot.",
    }
    seen: list[Image.Image] = []
    own = read_folder(tmp_path, ROBOT, lambda picture: seen.append(picture) or "Something blue.")
    assert captions(own)["d.png"] == "A robot, something blue." and own.described == len(seen) == 1
    assert seen[0].size == (40, 30)


def test_a_style_is_named_in_every_caption(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "a.txt").write_text("a fox in the snow")
    (tmp_path / "b.txt").write_text("A cat, in crayon style")
    found = captions(read_folder(tmp_path, Topic(style="crayon")))
    assert found["a.png"] == "A fox in the snow, in crayon style."
    assert found["b.png"] == "A cat, in crayon style."
    assert found["c.png"] == "A picture in crayon style."


def test_what_cannot_be_used_is_named_and_skipped(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.md").write_text("not a picture, and not called like one")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfa")
    lines = ["{", '{"caption": "whose?"}', '{"file": "gone.png", "caption": "x"}', '{"file": "a.png", "caption": 3}']
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    own = read_folder(tmp_path, ROBOT)
    assert captions(own).keys() == {"a.png", "b.png", "c.png"}
    skipped = dict(own.skipped)
    assert skipped.keys() == {"broken.png", "empty.jpg", "b.txt", *(f"captions.jsonl, line {n}" for n in (1, 2, 3, 4))}
    assert "is not a picture" in skipped["broken.png"] and "empty" in skipped["empty.jpg"]
    assert "gone.png" in skipped["captions.jsonl, line 3"] and "must be a text" in skipped["captions.jsonl, line 4"]
    assert "7 files skipped:\n" in str(own) and "  broken.png: " in str(own)


def test_too_few_pictures_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_folder(tmp_path / "none", ROBOT)
    paint(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds 2 usable pictures, and at least 3.*c\.png"):
        read_folder(tmp_path, ROBOT)
    with pytest.raises(ValueError, match="a name is one or a few words"):
        Topic(" ")


def test_a_sixth_is_held_out_and_stays_held_out_when_the_folder_grows(tmp_path: Path) -> None:
    paint(tmp_path, *(f"{number}.png" for number in range(12)))
    own = read_folder(tmp_path, ROBOT)
    assert (len(own.learnt), len(own.held_out)) == (10, 2)
    assert not {one.file for one in own.learnt} & {one.file for one in own.held_out}
    assert read_folder(tmp_path, ROBOT).held_out == own.held_out


def test_pairs_are_found_by_name_and_carry_an_instruction(tmp_path: Path) -> None:
    before = paint(tmp_path / "before", "1.png", "2.png", "3.jpg", "lonely.png")
    after = paint(tmp_path / "after", "1.jpg", "2.png", "3.png", "other.png")
    (after / "2.txt").write_text("make it golden")
    (after / "captions.jsonl").write_text(
        json.dumps({"file": "3.png", "instruction": "gild it", "caption": "A thing of gold"})
    )
    own = read_pairs(before, after, Topic("robot"))
    found = {example.file: example for example in (*own.learnt, *own.held_out)}
    assert {file: example.instruction for file, example in found.items()} == {
        "1.jpg": "make it a robot",
        "2.png": "make it golden",
        "3.png": "gild it",
    }
    assert all(example.before is not None for example in found.values())
    assert dict(own.skipped).keys() == {"lonely.png", "other.png"}
    assert default_instruction(Topic(style="crayon")) == "draw it in crayon style"
    with pytest.raises(ValueError, match="no instruction"):
        read_pairs(before, after, Topic())


def test_pictures_are_cut_to_their_middle_without_being_squeezed() -> None:
    wide = Image.new("RGB", (90, 30), "white")
    wide.paste((255, 0, 0), (30, 0, 60, 30))
    square = fitted(wide, 32, 32)
    assert square.size == (32, 32)
    assert all(red == 255 and green == blue < 8 for _, (red, green, blue) in square.getcolors())
    assert fitted(wide, 16, 32).size == (32, 16)
    own = OwnPictures((Example("a", wide, "A.", wide, "do"),), (), (), 0)
    (one,) = all_fitted(own, 32, 32).learnt
    assert one.picture.size == one.before.size == (32, 32)


def test_names_take_articles_where_people_would() -> None:
    assert [Topic(name).one for name in ("robot", "owlbear", "Rex", "my dog")] == [
        "a robot",
        "an owlbear",
        "Rex",
        "my dog",
    ]
    assert (Topic("lorry").many, Topic("Rex").many) == ("lorries", "Rex")
    assert Topic(style="crayon").in_style == "in crayon style" and Topic(style="my style").in_style == "in my style"
    assert ROBOT.is_named_in("two Robots!") and not ROBOT.is_named_in("a microrobot")
    assert phrase_of("Rex, at night.", Topic("Rex")) == "Rex, at night"
    assert phrase_of("A robot, at night.", ROBOT) == "a robot, at night"


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (shade, 20, 30))


EXAMPLES = tuple(Example(f"{n}.png", picture(n), f"A robot on the left, in scene {n}.") for n in range(4))


def test_requests_name_the_thing_and_are_said_in_many_ways() -> None:
    said = [request(random.Random(seed), EXAMPLES[0], ROBOT) for seed in range(300)]
    assert len(set(said)) > 100
    # a typing error may hit the name
    assert sum("robot" in text.lower() for text in said) > 285
    assert 0.25 < sum("left" in text.lower() for text in said) / 300 < 0.75
    fresh = {request(random.Random(seed), EXAMPLES[0], ROBOT, "heldout") for seed in range(300)}
    assert fresh - set(said)


def test_conversations_teach_to_draw_to_see_and_to_say_yes() -> None:
    stream = OwnConversations(EXAMPLES, ROBOT, rehearse=False)
    replies = [stream(number)[-1] for number in range(400)]
    drawn = [reply for reply in replies if reply.images]
    assert 0.7 < len(drawn) / 400 < 0.9
    assert {reply.text for reply in drawn} == {example.caption for example in EXAMPLES}
    for reply in drawn:
        assert reply.images[0].image == EXAMPLES[int(reply.text.split()[-1][:-1])].picture
    texts = Counter(reply.text for reply in replies if not reply.images)
    assert {"A robot.", "Yes, I can draw robots.", "Yes, there is a robot."} <= texts.keys()
    assert stream(3) == stream(3)


def test_storybook_conversations_go_on_and_never_contradict() -> None:
    unknown = Topic("lighthouse")  # storybook teaches to refuse it
    stream = OwnConversations(EXAMPLES, unknown, rehearse=True, own_share=0.5)
    own = {id(example.picture) for example in EXAMPLES}
    about_own = 0
    for number in range(200):
        messages = stream(number)
        pictures = [part.image for message in messages for part in message.images]
        mine = any(id(image) in own for image in pictures) or any(mentions(unknown, m.text) for m in messages)
        about_own += mine
        assert mine <= stream.is_own(number)  # what shows no picture may not speak of the thing
        assert not any("can't draw a lighthouse" in message.text for message in messages)
    assert 0.35 < about_own / 200 < 0.65
    assert not any(mentions(unknown, m.text) for n in range(300) for m in rehearsed(n, unknown, 64, "talk"))
    assert any(mentions(unknown, m.text) for n in range(3000) for m in rehearsed(n, Topic(), 64, "talk"))


def test_pairs_are_taught_as_edits() -> None:
    pair = Example("1.png", picture(1), "A golden fox.", picture(2), "make it golden")
    stream = OwnConversations((pair,), Topic(), rehearse=False)
    edits = [stream(number) for number in range(60)]
    edits = [messages for messages in edits if messages[0].images and messages[-1].images]
    assert len(edits) > 30
    for asked, answer in edits:
        assert asked.images[0].image == pair.before and answer.images[0].image == pair.picture
        assert answer.text == "A golden fox."


CRAYON = Topic(style="crayon")


def halves(left: int, right: int) -> Image.Image:
    """Two shades beside one another."""
    page = Image.new("RGB", (64, 64), (left, left, left))
    page.paste((right, right, right), (32, 0, 64, 64))
    return page


def test_a_mirror_image_has_left_and_right_exchanged_in_words_too() -> None:
    caption = "A fox on the Left, a cat at the top right, in crayon style."
    pair = Example("1.png", halves(0, 200), caption, halves(10, 90), "move the left fox right")
    turned = mirrored(pair)
    assert turned.picture == halves(200, 0) and turned.before == halves(90, 10)
    assert turned.caption == "A fox on the right, a cat at the top left, in crayon style."
    assert turned.instruction == "move the right fox left"
    assert mirrored(turned).picture == pair.picture


def test_a_part_of_a_picture_is_as_large_and_says_nothing_but_the_style() -> None:
    example = Example("1.png", halves(40, 200), "A fox on the left, in crayon style.")
    parts = [part(random.Random(seed), example, CRAYON) for seed in range(40)]
    assert {one.caption for one in parts} == {"A picture in crayon style."}
    assert {one.picture.size for one in parts} == {(64, 64)}
    shown = [
        {round(shade, -1) for shade in (one.picture.getpixel((1, 1))[0], one.picture.getpixel((62, 62))[0])}
        for one in parts
    ]
    assert {40, 200} in shown and ({40} in shown or {200} in shown), "different places, smaller and larger"


def test_styles_are_learnt_from_parts_and_mirror_images_things_are_not() -> None:
    """A thing may look different in a mirror, and is no longer whole in a part."""
    style = OwnConversations([Example("1.png", halves(40, 200), "A fox, in crayon style.")], CRAYON, rehearse=False)
    drawn = [reply for number in range(300) if (reply := style(number)[-1]).images]
    parts = sum(reply.text == "A picture in crayon style." for reply in drawn) / len(drawn)
    assert 0.2 < parts < 0.5
    whole = [reply.images[0].image for reply in drawn if reply.text == "A fox, in crayon style."]
    assert 0.3 < sum(page == halves(200, 40) for page in whole) / len(whole) < 0.7
    for topic in (ROBOT, Topic("robot", "crayon")):
        stream = OwnConversations([Example("1.png", halves(40, 200), "A robot.")], topic, rehearse=False)
        replies = [stream(number)[-1] for number in range(100)]
        assert all(image.image == halves(40, 200) for reply in replies for image in reply.images)
