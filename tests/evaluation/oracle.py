"""Engines and a judge that know the storybook's cases, so that the benchmark itself can be measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from data_recipes.storybook.judging.reading import Reading
from data_recipes.storybook.judging.scoring import Storybook, reading_of
from data_recipes.storybook.language.captions import canonical
from data_recipes.storybook.language.drawing_prompts import complete
from data_recipes.storybook.world.scene import Scene
from vargpt.evaluation.base import Report
from vargpt.evaluation.storybook import evaluate
from vargpt.types import ChatRequest, Message, TurnFinished

NOTHING = Reading((), None, None)
BLANK = Image.new("RGB", (64, 64), "white")


class KnownPages(Storybook):
    """The storybook with a judge that recognises the pages it has handed out, pixel by pixel, and nothing else."""

    def __init__(self) -> None:
        self.resolution = 64
        self.judge = self
        self._known: dict[bytes, Reading] = {}

    def picture(self, scene: Scene) -> Image.Image:
        image = super().picture(scene)
        self._known[image.tobytes()] = reading_of(scene)
        return image

    def detect(self, images: Sequence[Image.Image]) -> list[Reading]:
        return [self._known.get(image.tobytes(), NOTHING) for image in images]


class Scripted:
    """Answers every conversation with what `answer` makes of it, and remembers the requests."""

    model_name, model_hash = "scripted", None

    def __init__(self, answer: Callable[[tuple[Message, ...]], Message]) -> None:
        self.answer = answer
        self.requests: list[ChatRequest] = []

    def reply_batch(self, requests: Sequence[ChatRequest]) -> list[TurnFinished]:
        self.requests += requests
        return [TurnFinished(self.answer(request.messages), "stop") for request in requests]


def key(messages: Sequence[Message]) -> tuple:
    """What the user said so far, and which pictures came with it."""
    users = [message for message in messages if message.role == "user"]
    return tuple((m.text, tuple(part.image.tobytes() for part in m.images)) for m in users)


class Oracle(Scripted):
    """Knows the right reply to the cases of this world, number and seed.

    `change` makes another page of the one that should be drawn.
    """

    def __init__(
        self, world: KnownPages, n: int, seed: int = 0, change: Callable[[Scene], Scene] | None = None
    ) -> None:
        super().__init__(lambda messages: self._replies[key(messages)])
        self._world, self._change, self._replies = world, change, {}
        for category in world.draw_categories:
            for case in world.draw_cases(category, n, seed):
                self._learn((Message.of("user", case.request),), case.scene)
        for case in world.edit_cases(n, seed):
            self._learn((Message.of("user", world.picture(case.before), case.instruction),), case.after)
        for case in world.ask_cases(n, seed):
            question = Message.of("user", world.picture(case.scene), case.question.question)
            self._learn((question,), case.question.answer)
        for case in world.route_cases(n, seed):
            self._learn(case.messages, "hello" if case.route == "text" else BLANK)
        for case in world.dialogue_cases(n, seed):
            self._learn_dialogue(case)

    def _learn(self, messages: Sequence[Message], reply: Scene | str | Image.Image) -> None:
        parts = (reply,)
        if isinstance(reply, Scene):
            scene = self._change(reply) if self._change else reply
            parts = (canonical(scene), self._world.picture(scene))
        self._replies[key(messages)] = Message.of("assistant", *parts)

    def _learn_dialogue(self, case) -> None:
        said: tuple[Message, ...] = ()
        for turn in case.turns:
            uploaded = () if turn.uploaded is None else (self._world.picture(turn.uploaded),)
            said += (Message.of("user", *uploaded, turn.text),)
            page = None if turn.prompt is None else complete(random.Random(0), turn.prompt, "heldout", surprise=False)
            self._learn(said, turn.question.answer if page is None else page)


def recoloured(scene: Scene) -> Scene:
    """The same page with every colour wrong, where there is a choice."""
    other = {"red": "blue"}
    return replace(
        scene,
        groups=tuple(g if g.colour is None else replace(g, colour=other.get(g.colour, "red")) for g in scene.groups),
    )


def report_on(engine: Scripted, world: KnownPages, n: int, **settings) -> Report:
    """With a tokenizer that loses nothing."""
    *_, report = evaluate(engine, world, list, n, **settings)
    return report


def scores(report: Report) -> dict[tuple[str, str], float]:
    return {(row.task, row.name): row.score.value for row in report.rows}
