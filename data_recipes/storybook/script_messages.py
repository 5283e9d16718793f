"""Scripted turns as messages of the model, their scenes rendered: what the training stream and the test cases share."""

from __future__ import annotations

from collections.abc import Iterable

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.language.captions import canonical
from data_recipes.storybook.language.talk import ScriptedTurn
from data_recipes.storybook.world.scene import Scene
from vargpt.types import Message


def drawing(scene: Scene, resolution: int) -> Message:
    """The assistant's reply that draws: the canonical caption first, then the picture that it determines."""
    return Message.of("assistant", canonical(scene), render(scene, resolution))


def script_messages(turns: Iterable[ScriptedTurn], resolution: int) -> list[Message]:
    """The user's message and the reply of every turn, with pictures of `resolution` px."""
    messages = []
    for turn in turns:
        uploaded = () if turn.uploaded is None else (render(turn.uploaded, resolution),)
        messages.append(Message.of("user", *uploaded, turn.text))
        reply = Message.of("assistant", turn.reply) if turn.drawn is None else drawing(turn.drawn, resolution)
        messages.append(reply)
    return messages
