"""Held-out cases of whole conversations: does the model draw when it should, and does a dialogue keep what was said?"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.cases import held_out_scene, without_surprise
from data_recipes.storybook.language.dialogues import RECALLS
from data_recipes.storybook.language.drawing_prompts import DrawingPrompt, GroupSpec
from data_recipes.storybook.language.drawing_requests import phrase
from data_recipes.storybook.language.edits import Edit, sample_edit
from data_recipes.storybook.language.questions import MAKERS, Question, ask
from data_recipes.storybook.language.talk import ScriptedTurn, information, refusal, small_talk, task
from data_recipes.storybook.language.wording import rough
from data_recipes.storybook.script_messages import drawing
from data_recipes.storybook.world.scene import Group, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS
from vargpt.types import Message

Route = Literal["image", "text"]


@dataclass(frozen=True)
class RouteCase:
    """A conversation that ends with the user; `route` is whether the reply must hold a picture, `why` its kind."""

    messages: tuple[Message, ...]
    route: Route
    why: str


@dataclass(frozen=True)
class DialogueTurn:
    """One user turn and what must then be true: of the drawn picture (`prompt`) or of the answer (`question`).

    `prompt` holds only what was said or must have stayed; None = any picture or text.
    """

    text: str
    route: Route
    uploaded: Scene | None = None
    prompt: DrawingPrompt | None = None
    question: Question | None = None


@dataclass(frozen=True)
class DialogueCase:
    turns: tuple[DialogueTurn, ...]


def route_cases(n: int, seed: int = 0, resolution: int = 64) -> list[RouteCase]:
    """`n` cases, every kind in turn, half of them pictures."""
    return [_route_case(index, random.Random(f"case-route-{seed}-{index}"), resolution) for index in range(n)]


def _route_case(index: int, rng: random.Random, resolution: int) -> RouteCase:
    prompt, scene = without_surprise(rng, 1 + index % 2)
    request = Message.of("user", phrase(rng, prompt, "heldout"))
    if index % 2 == 0:
        why = ("draw", "edit", "edit of a drawing", "accepted offer")[index // 2 % 4]
        return RouteCase(_ends_with_picture(why, rng, request, scene, resolution), "image", why)
    why = ("ask", "recall", "small talk", "information", "task", "refusal")[index // 2 % 6]
    return RouteCase(_ends_with_text(why, rng, request, scene, resolution), "text", why)


def _ends_with_picture(
    why: str, rng: random.Random, request: Message, scene: Scene, resolution: int
) -> tuple[Message, ...]:
    if why == "draw":
        return (request,)
    if why == "accepted offer":
        turns: list[ScriptedTurn] = []
        while len(turns) != 2 or turns[1].kind != "accepted":
            turns = refusal(rng, "heldout")
        offer = Message.of("user", turns[0].text), Message.of("assistant", turns[0].reply)
        return (*offer, Message.of("user", turns[1].text))
    edit = None
    while edit is None:
        shown = scene if why == "edit of a drawing" else held_out_scene(rng)
        edit = sample_edit(rng, shown, "heldout", say_it=0.6)
    if why == "edit":
        return (Message.of("user", render(edit.before, resolution), edit.instruction),)
    return request, drawing(scene, resolution), Message.of("user", edit.instruction)


def _ends_with_text(
    why: str, rng: random.Random, request: Message, scene: Scene, resolution: int
) -> tuple[Message, ...]:
    if why == "ask":
        shown = held_out_scene(rng)
        return (Message.of("user", render(shown, resolution), ask(rng, shown, "heldout").question),)
    if why == "recall":
        recall = rough(rng, RECALLS.choose(rng, "heldout"))
        return request, drawing(scene, resolution), Message.of("user", recall)
    maker = {"small talk": small_talk, "information": information, "task": task, "refusal": refusal}[why]
    return (Message.of("user", maker(rng, "heldout")[0].text),)


def dialogue_cases(n: int, seed: int = 0) -> list[DialogueCase]:
    """`n` dialogues of 3 to 5 turns: a drawing or an upload, then changes and questions."""
    return [_dialogue_case(random.Random(f"case-dialogue-{seed}-{index}"), index) for index in range(n)]


def _dialogue_case(rng: random.Random, index: int) -> DialogueCase:
    if index % 3 == 2:
        scene = held_out_scene(rng)
        known = everything(scene)
        question = ask(rng, scene, "heldout")
        turns = [DialogueTurn(question.question, "text", uploaded=scene, question=question)]
    else:
        known, scene = without_surprise(rng, 1 + index % 2)
        turns = [DialogueTurn(phrase(rng, known, "heldout"), "image", prompt=known)]
    for _ in range(rng.choice((2, 3, 4))):
        edit = sample_edit(rng, scene, "heldout", say_it=0.6) if rng.random() < 0.6 else None
        if edit is None:
            question = known_question(rng, scene, known)
            turns.append(DialogueTurn(question.question, "text", question=question))
            continue
        known, scene = after_edit(known, edit), edit.after
        turns.append(DialogueTurn(edit.instruction, "image", prompt=known))
    return DialogueCase(tuple(turns))


def everything(scene: Scene) -> DrawingPrompt:
    """The prompt that only this picture meets."""
    specs = tuple(GroupSpec(group.kind, group.count, group.colour, group.size, group.place) for group in scene.groups)
    return DrawingPrompt(specs, scene.background, scene.style)


def after_edit(known: DrawingPrompt, edit: Edit) -> DrawingPrompt:
    """What must hold after the edit, given what had to hold before it; gaps of the words stay gaps."""
    before, after = edit.before, edit.after
    kept = list(known.specs)
    if edit.kind == "remove":
        gone = next(i for i, g in enumerate(before.groups) if not any(_same_thing(g, other) for other in after.groups))
        before = replace(before, groups=before.groups[:gone] + before.groups[gone + 1 :])
        kept.pop(gone)
    specs = [_spec_after(edit, *triple) for triple in zip(kept, before.groups, after.groups, strict=False)]
    if edit.kind == "add":
        specs.append(_new_spec(after.groups[-1]))
    return DrawingPrompt(
        tuple(specs),
        after.background if before.background != after.background else known.background,
        after.style if before.style != after.style else known.style,
    )


def _same_thing(group: Group, other: Group) -> bool:
    return (group.kind, group.colour) == (other.kind, other.colour)


def _spec_after(edit: Edit, spec: GroupSpec, old: Group, new: Group) -> GroupSpec:
    """Said details that the edit leaves alone stay; details it names become known; those moved to make room do not."""
    place, size, colour = spec.place, spec.size, spec.colour
    if old.place != new.place:
        place = new.place if edit.kind == "move" or (edit.kind == "swap" and spec.place) else None
    if old.size != new.size:
        size = new.size if edit.kind == "resize" and spec.size else None
    if old.colour != new.colour:
        colour = new.colour if edit.kind == "recolour" else None
    elif old.kind != new.kind:
        colour = None
    return GroupSpec(new.kind, new.count, colour, size, place)


def _new_spec(group: Group) -> GroupSpec:
    usual = OBJECTS[group.kind].colour
    return GroupSpec(group.kind, group.count, group.colour if group.colour != usual and usual else None)


def known_question(rng: random.Random, scene: Scene, known: DrawingPrompt) -> Question:
    """A question whose answer follows from what was said, whatever the painter chose for the rest."""
    kinds = ["presence", "count", "total", "category", "category presence"]
    if known.background:
        kinds += ["background", "night"]
    if all(spec.place for spec in known.specs):
        kinds += ["position", "at place"]
    if all(spec.colour or not OBJECTS[spec.kind].recolourable for spec in known.specs) and known.style:
        kinds += ["colour"]
    while True:
        kind = rng.choice(kinds)
        question = MAKERS[kind](rng, scene, "heldout")
        if question is not None:
            return question
