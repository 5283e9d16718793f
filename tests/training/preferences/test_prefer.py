"""Preferences: what is written is what is read, a killed run continues, and the better picture is chosen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.cases import practice_cases
from data_recipes.storybook.language.captions import canonical
from tests.assistant.test_model import picture
from tests.training.preferences.made_rows import drawn, preference
from training.preferences.prefer import Wanted, announced_pages, build, pictures_from, storybook_prompts, told_apart
from training.preferences.replies import layout_of, reply_batch
from vargpt.assistant.model import IGNORE_INDEX
from vargpt.chat.engine import ChatEngine
from vargpt.commands.cli import app
from vargpt.pictures.preference_rows import ROWS, PreferenceFolder
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ImagePart, ImageSampling, Message, TextPart, TurnFinished

MODEL, PROCESSOR = tiny_model(3, image_sampling={"temperature": 1.0}), tiny_processor()


def same(one: Message, other: Message) -> bool:
    """Pictures are compared by pixels: Pillow tells a picture and its file apart."""
    if (one.role, one.text, len(one.parts)) != (other.role, other.text, len(other.parts)):
        return False
    pairs = zip(one.images, other.images, strict=True)
    return all(
        a.image.tobytes() == b.image.tobytes() and replace(a, image=None) == replace(b, image=None) for a, b in pairs
    )


def test_what_is_written_into_a_folder_is_read_back_by_number(tmp_path) -> None:
    rows = [preference(MODEL, 0), preference(MODEL, 1, size=(16, 32)), replace(preference(MODEL, 2), scores=None)]
    folder = PreferenceFolder(tmp_path / "made" / "here")
    for number, row in zip((4, 7, 5), rows, strict=True):
        folder.add(number, row)
    folder.add(6, None)
    for read in (folder, PreferenceFolder.existing(folder.path)):
        assert len(read) == 3 and read.tried == {4, 5, 6, 7}
        for row, again in zip(rows, read, strict=True):
            assert all(
                map(same, (*row.prompt, row.chosen, row.rejected), (*again.prompt, again.chosen, again.rejected))
            )
            assert again.scores == row.scores
    assert folder[0].chosen.images[0].tokens is not None and folder[0].prompt[0].images[0].tokens is None
    with pytest.raises(ValueError, match="a line for prompt 5 already"):
        folder.add(5, None)


def test_half_a_line_is_forgotten_and_written_anew(tmp_path) -> None:
    folder = PreferenceFolder(tmp_path)
    folder.add(0, preference(MODEL, 0))
    file = tmp_path / ROWS
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"number": 1, "prom')
    continued = PreferenceFolder(tmp_path)
    assert continued.tried == {0}
    continued.add(1, None)
    assert file.read_bytes() == whole + b'{"number": 1}\n'


def test_folders_that_teach_nothing_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="vargpt prefer"):
        PreferenceFolder.existing(tmp_path)
    PreferenceFolder(tmp_path).add(0, None)
    with pytest.raises(ValueError, match="holds no pair"):
        PreferenceFolder.existing(tmp_path)
    PreferenceFolder.continued(tmp_path, {"n": 4, "seed": 0})
    with pytest.raises(ValueError, match="n was 4 and is 5"):
        PreferenceFolder.continued(tmp_path, {"n": 5, "seed": 0})


# -- from replies to batches -------------------------------------------------------------------------------------------


def test_only_the_last_reply_is_scored_and_earlier_pictures_are_read_back() -> None:
    row = preference(MODEL, 2)
    talk = (
        *row.prompt,
        row.chosen,
        Message.of("user", "and a cat"),
        Message.of("assistant", "A cat.", drawn(MODEL, 9)),
    )
    batch = reply_batch([talk, [*row.prompt, row.rejected]], MODEL, PROCESSOR, score_text=True)
    slots = (batch["input_ids"] == PROCESSOR.special.gen_pad).sum(1)
    assert slots.tolist() == [21, 21]
    assert torch.equal(batch["pictures"].tokens.flat()[0], talk[-1].images[0].tokens.flat()[0])
    assert len(batch["image_grid_thw"]) == 3 == len(batch["image_latents"]), "an upload, what was drawn, an upload"
    said = [
        PROCESSOR.tokenizer.decode(ids[labels != IGNORE_INDEX])
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    assert said == ["A cat.<|image_gen_start|>", "A fox.<|image_gen_start|>"]


def test_pictures_without_tokens_are_encoded_in_the_size_of_the_others() -> None:
    own = drawn(MODEL, 3, size=(16, 32))
    uploaded = ImagePart(picture(5, (90, 70)))
    talks = [[Message.of("user", "draw a fox"), Message.of("assistant", part)] for part in (own, uploaded)]
    batch = reply_batch(talks, MODEL, PROCESSOR)
    layout = batch["pictures"].tokens.layout
    assert (layout.height, layout.width) == (16, 32) and batch["pictures"].tokens.flat().shape == (2, 11, 8)
    assert torch.equal(batch["pictures"].tokens.flat()[0], own.tokens.flat()[0])
    with pytest.raises(ValueError, match="32x16, 32x32 pixels"):
        layout_of([own, drawn(MODEL, 3)], MODEL)
    with pytest.raises(ValueError, match="conversation 0 does not end with a picture"):
        reply_batch([[Message.of("user", picture(1))]], MODEL, PROCESSOR)


# -- building ----------------------------------------------------------------------------------------------------------


def brightness(prompts, images, **_) -> list[float]:
    return [sum(image.convert("L").resize((1, 1)).getdata()) / 255 for image in images]


WANTED = [Wanted((Message.of("user", text),)) for text in ("a fox", "a pine tree", "a cat")]


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    return ChatEngine(MODEL, PROCESSOR)


def test_the_best_picture_of_a_prompt_is_chosen_over_the_worst(engine, tmp_path) -> None:
    folder = PreferenceFolder(tmp_path)
    done = list(build(engine, WANTED, folder, n=3, seed=5, reward=brightness, batch_size=2))
    assert [one.number for one in done] == [0, 1, 2]
    for one in done:
        row = folder[one.number]
        assert len(one.scores) == 3 and row.scores == (max(one.scores), min(one.scores))
        seeds = [message.images[0].seed - 5 - 3 * one.number for message in (row.chosen, row.rejected)]
        assert [one.scores[seed] for seed in seeds] == list(row.scores)
        assert row.chosen.text == row.rejected.text
        assert isinstance(row.chosen.parts[-1], ImagePart) and row.chosen.images[0].tokens is not None


def test_pictures_that_are_all_alike_give_no_pair(engine, tmp_path) -> None:
    folder = PreferenceFolder(tmp_path)
    list(build(engine, WANTED[:1], folder, n=2, reward=lambda prompts, images, **_: [0.5] * len(images)))
    assert len(folder) == 0 and folder.tried == {0}


def test_a_run_that_was_stopped_draws_the_rest_as_one_that_was_not(engine, tmp_path) -> None:
    whole, halves = PreferenceFolder(tmp_path / "whole"), PreferenceFolder(tmp_path / "halves")
    list(build(engine, WANTED, whole, n=2, reward=brightness))
    running = build(engine, WANTED, halves, n=2, reward=brightness, batch_size=1)
    next(running)
    running.close()
    again = list(build(engine, WANTED, PreferenceFolder(halves.path), n=2, reward=brightness, batch_size=1))
    assert [one.number for one in again] == [1, 2]
    for one, other in zip(whole, PreferenceFolder(halves.path), strict=True):
        assert same(one.chosen, other.chosen) and same(one.rejected, other.rejected)


def test_a_picture_from_elsewhere_is_chosen_over_the_models_own(engine, tmp_path) -> None:
    bright = Image.new("RGB", (40, 40), "white")
    bright.save(tmp_path / "fox.png")
    lines = [{"prompt": "a fox", "files": ["fox.png"]}, {"prompt": "a cat", "files": []}]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, lines)))
    better, folder = pictures_from(tmp_path), PreferenceFolder(tmp_path / "rows")
    list(build(engine, WANTED, folder, n=1, better=better))
    assert len(folder) == 1 and folder.tried == {0, 1, 2}
    row = folder[0]
    assert row.chosen.images[0].image.tobytes() == bright.tobytes() and row.chosen.images[0].tokens is None
    assert row.rejected.images[0].tokens is not None and row.chosen.text == row.rejected.text and row.scores is None
    scored = PreferenceFolder(tmp_path / "scored")
    list(build(engine, WANTED[:1], scored, n=2, better=better, reward=brightness))
    assert scored[0].scores[0] == 1.0 > scored[0].scores[1]
    darker = PreferenceFolder(tmp_path / "darker")
    list(build(engine, WANTED[:1], darker, n=2, better=better, reward=lambda *a, **_: [-one for one in brightness(*a)]))
    assert len(darker) == 0, "the reward finds the picture from elsewhere worse"


def test_the_announced_page_is_drawn_where_it_is_what_was_asked_for() -> None:
    right, other = practice_cases(2)
    wanted = Wanted((Message.of("user", right.request),), {"case": right})
    better = announced_pages()
    page = better(wanted, Message.of("assistant", canonical(right.scene)))
    assert page.tobytes() == render(right.scene).tobytes()
    assert better(wanted, Message.of("assistant", canonical(other.scene))) is None
    assert better(wanted, Message.of("assistant", "I cannot draw that.")) is None


def test_preferences_need_something_to_prefer_by(engine, tmp_path) -> None:
    with pytest.raises(ValueError, match="a reward or from pictures"):
        next(build(engine, WANTED, PreferenceFolder(tmp_path), n=2))
    with pytest.raises(ValueError, match="compares two pictures, got n=1"):
        next(build(engine, WANTED, PreferenceFolder(tmp_path), n=1, reward=brightness))


# -- the command -------------------------------------------------------------------------------------------------------


class Painter:
    """Draws the right page at even seeds, and an empty one at odd ones."""

    def __init__(self, n: int) -> None:
        self.cases, self.asked = {case.request: case for case in practice_cases(n)}, []
        self.samplings = set()

    def image_sampling(self, **changes):
        return ImageSampling(**changes)

    def reply_batch(self, requests):
        self.asked += [request.messages[-1].text for request in requests]
        self.samplings |= {request.image_sampling for request in requests}
        return [self.reply(request) for request in requests]

    def reply(self, request):
        right = render(self.cases[request.messages[-1].text].scene)
        seeds = range(request.seed, request.seed + request.n)
        parts = [
            ImagePart(right if seed % 2 == 0 else Image.new("RGB", (64, 64), "white"), seed=seed) for seed in seeds
        ]
        return TurnFinished(Message("assistant", (TextPart("Here."), *parts)), "stop")

    model_name, model_hash = "painter", "0"


def test_the_command_builds_a_folder_from_the_storybook_and_goes_on_where_it_stopped(monkeypatch, tmp_path) -> None:
    painter = Painter(3)
    monkeypatch.setattr(ChatEngine, "load", lambda *args, **fields: painter)
    arguments = ["prefer", "--storybook", "3", "--n", "2", "--reward", "storybook", "--out", str(tmp_path / "rows")]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "3 pairs from 3 prompts" in first.output and len(painter.asked) == 3
    folder = PreferenceFolder.existing(tmp_path / "rows")
    assert all(row.scores[0] == 1.0 > row.scores[1] and row.chosen.images[0].seed % 2 == 0 for row in folder)
    assert CliRunner().invoke(app, arguments).exit_code == 0 and len(painter.asked) == 3
    other = CliRunner().invoke(app, [*arguments, "--seed", "8"])
    assert other.exit_code == 2 and "seed was 0 and is 8" in other.output


def test_pictures_can_be_drawn_as_they_are_learnt_from(monkeypatch, tmp_path) -> None:
    painter = Painter(2)
    monkeypatch.setattr(ChatEngine, "load", lambda *args, **fields: painter)
    arguments = ["prefer", "--storybook", "2", "--n", "2", "--reward", "storybook", "--out", str(tmp_path / "rows")]
    plainly = [*arguments, "--guidance", "1", "--temperature", "1"]
    assert CliRunner().invoke(app, plainly).exit_code == 0
    assert painter.samplings == {ImageSampling(guidance_scale=1.0, temperature=1.0)}
    otherwise = CliRunner().invoke(app, [*arguments, "--guidance", "2", "--temperature", "1"])
    assert otherwise.exit_code == 2 and "guidance was 1.0 and is 2.0" in otherwise.output


def test_prompts_that_no_picture_was_better_at_are_left_out(tmp_path) -> None:
    wanted, folder = storybook_prompts(4), PreferenceFolder(tmp_path)
    pair = preference(MODEL, 1)
    for number, row in ((0, None), (1, replace(pair, prompt=wanted[1].messages)), (2, None)):
        folder.add(number, row)
    assert told_apart(wanted, tmp_path) == [wanted[1]]
    with pytest.raises(ValueError, match="is of other prompts"):
        told_apart(storybook_prompts(4, seed=1), tmp_path)
    with pytest.raises(ValueError, match="is of other prompts"):
        told_apart(wanted[:1], tmp_path)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--reward", "storybook"], "--prompts FILE or --storybook N"),
        (["--storybook", "3"], "--reward or --chosen-from"),
        (["--storybook", "3", "--reward", "taste"], "there is no reward 'taste'"),
        (["--prompts", "nowhere.txt", "--reward", "storybook"], "knows only the requests of --storybook"),
        (["--prompts", "nowhere.txt", "--chosen-from", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_show_before_the_model_is_loaded(arguments, problem, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ChatEngine, "load", lambda *args, **fields: pytest.fail("too late"))
    result = CliRunner().invoke(app, ["prefer", *arguments, "--out", str(tmp_path / "rows")])
    assert result.exit_code == 2 and problem in result.output
