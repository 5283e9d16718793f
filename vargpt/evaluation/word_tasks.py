"""Tasks in which words count: answering questions, drawing only when asked, and keeping a conversation together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from vargpt.evaluation.base import Row
from vargpt.evaluation.intervals import mean_score
from vargpt.evaluation.task import Measured, Run
from vargpt.types import Message, TurnFinished


def measure_answers(run: Run) -> Measured:
    """Questions on uploaded pages; a picture is no answer."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for start, cases in run.batches(run.world.ask_cases(run.n, run.seed)):
        said = [(Message.of("user", run.world.picture(case.scene), case.question.question),) for case in cases]
        for case, turn in zip(cases, run.reply("ask", start, said), strict=True):
            reply = turn.message
            right = not reply.images and run.world.answer_is_right(case.question, reply.text)
            kinds[case.question.kind].append(right)
        yield len(cases)
    rows = [share("ask", "all", [mark for _, marks in sorted(kinds.items()) for mark in marks])]
    return rows + [share("ask", kind, marks) for kind, marks in sorted(kinds.items())]


def measure_routes(run: Run) -> Measured:
    """Does the model draw exactly when a picture is wanted?"""
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for start, cases in run.batches(run.world.route_cases(run.n, run.seed)):
        for case, turn in zip(cases, run.reply("route", start, [case.messages for case in cases]), strict=True):
            kinds[case.route, case.why].append(bool(turn.message.images) == (case.route == "image"))
        yield len(cases)
    rows = [share("route", "all", [mark for _, marks in sorted(kinds.items()) for mark in marks])]
    for (route, why), marks in sorted(kinds.items()):
        rows.append(share("route", f"{'picture' if route == 'image' else 'text'}: {why}", marks))
    return rows


def measure_dialogues(run: Run) -> Measured:
    """Several turns over the model's own replies: what was drawn, said or changed before must still hold.

    The turns of one dialogue depend on one another, so intervals resample whole dialogues.
    """
    marks: dict[str, list[float]] = defaultdict(list)
    owners: dict[str, list[int]] = defaultdict(list)
    for start, cases in run.batches(run.world.dialogue_cases(run.n, run.seed)):
        histories: list[tuple[Message, ...]] = [() for _ in cases]
        whole = [True] * len(cases)
        for number in range(max(len(case.turns) for case in cases)):
            live = [i for i, case in enumerate(cases) if number < len(case.turns)]
            asked = [histories[i] + (_spoken(run, cases[i].turns[number]),) for i in live]
            turns = run.reply(f"dialogue {number}", start, asked)
            rights = _turns_are_right(run, [cases[i].turns[number] for i in live], turns)
            for i, messages, turn, right in zip(live, asked, turns, rights, strict=True):
                histories[i] = (*messages, turn.message)
                whole[i] = whole[i] and right
                kind = "picture turns" if cases[i].turns[number].route == "image" else "text turns"
                for name in ("turns", kind, "first turns" if number == 0 else "later turns"):
                    marks[name].append(right)
                    owners[name].append(start + i)
        marks["whole dialogues"] += whole
        owners["whole dialogues"] += range(start, start + len(cases))
        yield len(cases)
    return [share("dialogue", name, marks[name], owners[name]) for name in marks]


def share(task: str, name: str, marks: list[float], groups: Sequence[int] = ()) -> Row:
    """The row of so many right and wrong cases."""
    return Row(task, name, mean_score(marks, groups or None), marks={"right": marks}, groups=list(groups))


def _spoken(run: Run, turn: Any) -> Message:
    uploaded = () if turn.uploaded is None else (run.world.picture(turn.uploaded),)
    return Message.of("user", *uploaded, turn.text)


def _turns_are_right(run: Run, asked: Sequence[Any], turns: Sequence[TurnFinished]) -> list[bool]:
    """Route right, and the picture or the answer too."""
    pictures = [run.picture(turn) for turn in turns]
    rights = []
    for case, turn, reading in zip(asked, turns, run.read(pictures), strict=True):
        if (reading is not None) != (case.route == "image"):
            rights.append(False)
        elif reading is not None:
            rights.append(run.world.turn_is_right(case, reading))
        else:
            rights.append(case.question is None or run.world.answer_is_right(case.question, turn.message.text))
    for case, picture, right in zip(asked, pictures, rights, strict=True):
        if case.route == "image":
            run.show("dialogue", [picture], case.text, right)
    return rights
