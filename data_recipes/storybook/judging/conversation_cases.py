"""Held-out cases of whole conversations: does the model draw when it should, and does a dialogue keep what was said?"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.cases import held_out_page, without_surprise
from data_recipes.storybook.language.dialogues import RECALLS
from data_recipes.storybook.language.drawing_requests import phrase
from data_recipes.storybook.language.edits import Edit, sample_edit
from data_recipes.storybook.language.questions import MAKERS, Question, ask
from data_recipes.storybook.language.talk import Turn, information, refusal, small_talk, task
from data_recipes.storybook.language.wishes import Want, Wish
from data_recipes.storybook.language.wording import rough
from data_recipes.storybook.samples import drawing
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
    """One user turn and what must then be true: of the drawn page (`wish`) or of the answer (`question`).

    `wish` holds only what was said or must have stayed (`wish.is_met_in_any_order(scene)`); None = any picture or text.
    """

    text: str
    route: Route
    uploaded: Scene | None = None
    wish: Wish | None = None
    question: Question | None = None


@dataclass(frozen=True)
class DialogueCase:
    turns: tuple[DialogueTurn, ...]


def route_cases(n: int, seed: int = 0, resolution: int = 64) -> list[RouteCase]:
    """`n` cases, every kind in turn, half of them pictures."""
    return [_route_case(index, random.Random(f"case-route-{seed}-{index}"), resolution) for index in range(n)]


def _route_case(index: int, rng: random.Random, resolution: int) -> RouteCase:
    wish, scene = without_surprise(rng, 1 + index % 2)
    request = Message.of("user", phrase(rng, wish, "heldout"))
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
        turns: list[Turn] = []
        while len(turns) != 2 or turns[1].kind != "accepted":
            turns = refusal(rng, "heldout")
        offer = Message.of("user", turns[0].text), Message.of("assistant", turns[0].reply)
        return (*offer, Message.of("user", turns[1].text))
    edit = None
    while edit is None:
        page = scene if why == "edit of a drawing" else held_out_page(rng)
        edit = sample_edit(rng, page, "heldout", say_it=0.6)
    if why == "edit":
        return (Message.of("user", render(edit.before, resolution), edit.instruction),)
    return request, drawing(scene, resolution), Message.of("user", edit.instruction)


def _ends_with_text(
    why: str, rng: random.Random, request: Message, scene: Scene, resolution: int
) -> tuple[Message, ...]:
    if why == "ask":
        page = held_out_page(rng)
        return (Message.of("user", render(page, resolution), ask(rng, page, "heldout").question),)
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
        scene = held_out_page(rng)
        known = everything(scene)
        question = ask(rng, scene, "heldout")
        turns = [DialogueTurn(question.question, "text", uploaded=scene, question=question)]
    else:
        known, scene = without_surprise(rng, 1 + index % 2)
        turns = [DialogueTurn(phrase(rng, known, "heldout"), "image", wish=known)]
    for _ in range(rng.choice((2, 3, 4))):
        edit = sample_edit(rng, scene, "heldout", say_it=0.6) if rng.random() < 0.6 else None
        if edit is None:
            question = known_question(rng, scene, known)
            turns.append(DialogueTurn(question.question, "text", question=question))
            continue
        known, scene = after_edit(known, edit), edit.after
        turns.append(DialogueTurn(edit.instruction, "image", wish=known))
    return DialogueCase(tuple(turns))


def everything(scene: Scene) -> Wish:
    """The wish that only this page meets."""
    wants = tuple(Want(group.kind, group.count, group.colour, group.size, group.place) for group in scene.groups)
    return Wish(wants, scene.background, scene.style)


def after_edit(known: Wish, edit: Edit) -> Wish:
    """What must hold after the edit, given what had to hold before it; gaps of the words stay gaps."""
    before, after = edit.before, edit.after
    kept = list(known.wants)
    if edit.kind == "remove":
        gone = next(i for i, g in enumerate(before.groups) if not any(_same_thing(g, other) for other in after.groups))
        before = replace(before, groups=before.groups[:gone] + before.groups[gone + 1 :])
        kept.pop(gone)
    wants = [_want_after(edit, *triple) for triple in zip(kept, before.groups, after.groups, strict=False)]
    if edit.kind == "add":
        wants.append(_new_want(after.groups[-1]))
    return Wish(
        tuple(wants),
        after.background if before.background != after.background else known.background,
        after.style if before.style != after.style else known.style,
    )


def _same_thing(group: Group, other: Group) -> bool:
    return (group.kind, group.colour) == (other.kind, other.colour)


def _want_after(edit: Edit, want: Want, old: Group, new: Group) -> Want:
    """Said details that the edit leaves alone stay; details it names become known; those moved to make room do not."""
    place, size, colour = want.place, want.size, want.colour
    if old.place != new.place:
        place = new.place if edit.kind == "move" or (edit.kind == "swap" and want.place) else None
    if old.size != new.size:
        size = new.size if edit.kind == "resize" and want.size else None
    if old.colour != new.colour:
        colour = new.colour if edit.kind == "recolour" else None
    elif old.kind != new.kind:
        colour = None
    return Want(new.kind, new.count, colour, size, place)


def _new_want(group: Group) -> Want:
    usual = OBJECTS[group.kind].colour
    return Want(group.kind, group.count, group.colour if group.colour != usual and usual else None)


def known_question(rng: random.Random, scene: Scene, known: Wish) -> Question:
    """A question whose answer follows from what was said, whatever the painter chose for the rest."""
    kinds = ["presence", "count", "total", "category", "category presence"]
    if known.background:
        kinds += ["background", "night"]
    if all(want.place for want in known.wants):
        kinds += ["position", "at place"]
    if all(want.colour or not OBJECTS[want.kind].recolourable for want in known.wants) and known.style:
        kinds += ["colour"]
    while True:
        kind = rng.choice(kinds)
        question = MAKERS[kind](rng, scene, "heldout")
        if question is not None:
            return question
