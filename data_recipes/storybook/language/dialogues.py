"""Dialogues that mix drawing, questions, edits and talk; each turn refers to the picture that was seen last."""

from __future__ import annotations

import random

from data_recipes.storybook.language.captions import canonical
from data_recipes.storybook.language.drawing_prompts import sample_drawing, sample_upload
from data_recipes.storybook.language.drawing_requests import phrase
from data_recipes.storybook.language.edits import sample_edit
from data_recipes.storybook.language.impossible import impossible_edit
from data_recipes.storybook.language.questions import ask
from data_recipes.storybook.language.talk import ScriptedTurn, drawing_turn, information, refusal, small_talk, task
from data_recipes.storybook.language.wording import rough
from data_recipes.storybook.splits import Phrases, Split
from data_recipes.storybook.world.scene import Scene

MAX_PICTURES = 4  # keeps a dialogue within the context of a tiny model
NUM_TURNS = ((2, 3, 4, 5, 6, 7, 8), (0.3, 0.26, 0.2, 0.1, 0.07, 0.04, 0.03))
UNDOS = Phrases(
    "undo",
    ("undo that", "undo", "go back", "the one before was better", "take that back", "revert it", "back to the last one",
     "i liked the previous one more"),
)  # fmt: skip
RECALLS = Phrases(
    "recall",
    ("what did you draw?", "what have you drawn?", "what did you just draw?", "what is it now?",
     "what does it show now?",
     "what was that?", "what did you paint?", "tell me what you drew"),
)  # fmt: skip


def make_dialogue(rng: random.Random, split: Split = "train", num_turns: int | None = None) -> list[ScriptedTurn]:
    """A dialogue of 2 to 8 turns that starts with a picture, drawn or uploaded, at times after a greeting."""
    wanted = num_turns or rng.choices(*NUM_TURNS)[0]
    turns: list[ScriptedTurn] = small_talk(rng, split) if rng.random() < 0.12 else []
    while len(turns) < wanted:
        turns += next_turns(rng, split, turns)
    return turns


def next_turns(rng: random.Random, split: Split, turns: list[ScriptedTurn]) -> list[ScriptedTurn]:
    """One random turn that may follow, or two where an offer is answered."""
    scene, recent = current_scene(turns)
    if scene is None:
        return [_upload(rng, split)] if rng.random() < 0.27 else [_draw(rng, split)]
    pictures = sum((turn.drawn is not None) + (turn.uploaded is not None) for turn in turns)
    if pictures < MAX_PICTURES and rng.random() < 0.62:
        roll = rng.random()
        if roll < 0.05 and len(turns) > 1 and turns[-1].kind.startswith("edit") and turns[-2].drawn is not None:
            return [drawing_turn("undo", rough(rng, UNDOS.choose(rng, split)), turns[-2].drawn)]
        if roll < 0.68:
            edit = sample_edit(rng, scene, split, say_it=0.6, recent=recent)
            if edit is not None:
                return [drawing_turn(f"edit {edit.kind}", edit.instruction, edit.after)]
        return [_upload(rng, split)] if roll > 0.94 else [_draw(rng, split)]
    return _words_only(rng, split, scene, drawn=turns[-1].drawn is not None)


def current_scene(turns: list[ScriptedTurn]) -> tuple[Scene | None, int | None]:
    """The picture seen last, and the index of the group that "it" means: the one that the last edit changed."""
    scenes = [scene for turn in turns for scene in (turn.uploaded, turn.drawn) if scene is not None]
    if not scenes:
        return None, None
    recent = None
    if len(scenes) > 1 and turns[-1].kind.startswith("edit"):
        changed = [i for i, group in enumerate(scenes[-1].groups) if group not in scenes[-2].groups]
        recent = changed[0] if len(changed) == 1 else None
    return scenes[-1], recent


def _draw(rng: random.Random, split: Split) -> ScriptedTurn:
    prompt, scene = sample_drawing(rng, split)
    return drawing_turn("draw", phrase(rng, prompt, split), scene)


def _upload(rng: random.Random, split: Split) -> ScriptedTurn:
    scene = sample_upload(rng, split)
    edit = sample_edit(rng, scene, split) if rng.random() < 0.4 else None
    if edit is not None:
        return ScriptedTurn(f"edit {edit.kind}", edit.instruction, canonical(edit.after), edit.after, uploaded=scene)
    asked = ask(rng, scene, split)
    return ScriptedTurn(f"ask {asked.kind}", asked.question, asked.answer, uploaded=scene)


def _words_only(rng: random.Random, split: Split, scene: Scene, drawn: bool) -> list[ScriptedTurn]:
    roll = rng.random()
    if roll < 0.09:
        refused = impossible_edit(rng, scene, split)
        return [ScriptedTurn("impossible edit", *refused)]
    if roll < 0.72:
        asked = ask(rng, scene, split)
        return [ScriptedTurn(f"ask {asked.kind}", asked.question, asked.answer)]
    if roll < 0.8 and drawn:
        return [ScriptedTurn("recall", rough(rng, RECALLS.choose(rng, split)), canonical(scene))]
    if roll < 0.88:
        return small_talk(rng, split)
    if roll < 0.91:
        return information(rng, split)
    return task(rng, split) if roll < 0.94 else refusal(rng, split)
