"""Whether learning from preferences or rewards brought what it was for: rewards of held-out prompts, before and after.

    python -m training.preferences.win_rate vargpt/checkpoints/nano runs/dpo/model runs/grpo/model --storybook 1000

In: model folders, the first of which the others are compared with. Of every prompt each of them draws with equal seeds;
the pictures' rewards are compared prompt by prompt. Out: mean rewards with paired 95 % intervals, and win rates. What
was drawn is kept in `--out`, one file per model, so that a stopped comparison goes on where it was.

By default pictures are drawn as DPO and GRPO learn them: at temperature 1 and without guidance. `--as-shown` draws as
the model does by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_recipes.storybook.judging.cases import DRAW_PROMPTS, draw_cases
from training.command_line import Positional, read_command, user_errors
from training.preferences.prefer import Answers, Wanted, prompts_of, replied, scored
from training.preferences.rewards import Reward, reward_named
from vargpt.chat.engine import ChatEngine
from vargpt.evaluation.intervals import Score, mean_score
from vargpt.loading.models import model_hash
from vargpt.published.families import resolve_model
from vargpt.types import ChatRequest, ImageSampling, Message

PROG = "python -m training.preferences.win_rate"
LEARNT = {"temperature": 1.0, "guidance_scale": 1.0}  # what log-probabilities are raised and lowered of
DRAWN_TOGETHER = 16  # prompts
ALL = "all"


@dataclass(frozen=True)
class Compared:
    """One model beside another on the same prompts: mean rewards, and what share of the prompts told apart it won.

    `difference` is after minus before; `wins` is None where no prompt was told apart.
    """

    kind: str
    before: float
    after: float
    difference: Score
    better: int
    worse: int
    wins: Score | None


def held_out_prompts(n: int, seed: int = 0) -> list[Wanted]:
    """`n` requests of the storybook's evaluation, its categories in turn; prompt `i` is the same for every `n`.

    Raises:
        ValueError: `n` is less than one.
    """
    if n < 1:
        raise ValueError(f"--storybook is at least 1, got {n}")
    names = tuple(DRAW_PROMPTS)
    by_name = {name: draw_cases(name, -(-n // len(names)), seed) for name in names}  # type: ignore[arg-type]
    cases = [by_name[names[number % len(names)]][number // len(names)] for number in range(n)]
    return [Wanted((Message.of("user", case.request),), {"case": case}) for case in cases]


def rewards(
    engine: Answers, wanted: Sequence[Wanted], reward: Reward, n: int, seed: int, sampling: ImageSampling | None
) -> Iterator[float]:
    """The mean reward of `n` pictures of every prompt, in order; number i draws with the seeds from `seed + i * n` on.

    Args:
        engine: draws every prompt, even one that the model would rather refuse.
        wanted: the prompts.
        reward: as in `training.preferences.rewards`.
        n: pictures of each.
        seed: of the first picture of prompt 0.
        sampling: how they are drawn; None = as the model does by itself.
    """
    for start in range(0, len(wanted), DRAWN_TOGETHER):
        part = wanted[start : start + DRAWN_TOGETHER]
        requests = [
            ChatRequest(
                messages=one.messages, route="image", n=n, seed=seed + (start + place) * n, image_sampling=sampling
            )
            for place, one in enumerate(part)
        ]
        for one, turn in zip(part, engine.reply_batch(requests), strict=True):
            found = scored(one, [replied(turn.message, picture) for picture in turn.message.images], reward)
            yield sum(found) / len(found)


class RewardFile:
    """The rewards of one model so far, a number per line below a line that says of what.

    Args:
        path: of the file.
        about: what must be the same for it to be gone on with.

    Raises:
        ValueError: the file is about something else.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        head, *lines = text[: text.rfind("\n") + 1].splitlines() or [
            ""
        ]  # half a line, of a process that was killed, goes
        if head and json.loads(head) != dict(about):
            raise ValueError(f"{path} holds rewards of {head}, not of {json.dumps(about)}; name another --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([json.dumps(about), *lines, ""]), encoding="utf-8")
        self.values = [float(line) for line in lines]

    def add(self, value: float) -> None:
        self.values.append(value)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{value!r}\n")


def compared(kind: str, before: Sequence[float], after: Sequence[float]) -> Compared:
    """Rewards of the same prompts, prompt by prompt."""
    differences = [new - old for old, new in zip(before, after, strict=True)]
    told_apart = [float(difference > 0) for difference in differences if difference != 0]
    better = int(sum(told_apart))
    return Compared(
        kind=kind,
        before=mean_score(before).value,
        after=mean_score(after).value,
        difference=mean_score(differences),
        better=better,
        worse=len(told_apart) - better,
        wins=mean_score(told_apart) if told_apart else None,
    )


def by_kind(wanted: Sequence[Wanted], before: Sequence[float], after: Sequence[float]) -> list[Compared]:
    """All prompts, then those of each category of the storybook."""
    rows = [compared(ALL, before, after)]
    kinds = [getattr(one.columns.get("case"), "category", None) for one in wanted]
    for kind in dict.fromkeys(kinds):
        if kind is not None:
            chosen = [number for number, name in enumerate(kinds) if name == kind]
            rows.append(compared(kind, [before[i] for i in chosen], [after[i] for i in chosen]))
    return rows


def markdown(name: str, rows: Sequence[Compared]) -> str:
    """One model beside the first, as a table."""
    lines = [f"| {name} | prompts | before | after | difference | better / worse | wins, % |", "|---" * 7 + "|"]
    for row in rows:
        d, wins = row.difference, row.wins
        cells = [row.kind, str(d.n), f"{row.before:.3f}", f"{row.after:.3f}"]
        cells += [f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", f"{row.better} / {row.worse}"]
        cells.append("—" if wins is None else f"{100 * wins.value:.0f} [{100 * wins.low:.0f}, {100 * wins.high:.0f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class WinRateCommand:
    """Compare the rewards of held-out prompts, before and after. Name them by `--storybook` or `--prompts`."""

    models: Positional[tuple[str, ...]]
    """Model folders; the first is what came before."""
    storybook: int | None = None
    """So many held-out requests of the storybook."""
    prompts: Path | None = None
    """A file with one prompt per line."""
    reward: str = "storybook"
    """As for `vargpt prefer`."""
    n: int = 1
    """Pictures per prompt, whose mean counts."""
    seed: int = 0
    """Of the prompts and of the first picture."""
    as_shown: bool = False
    """Temperature and guidance of the model itself."""
    device: str = "auto"
    out: Path = Path("runs/win_rate")
    """Where rewards are kept."""

    def __post_init__(self) -> None:
        if len(self.models) < 2 or self.n < 1:
            raise ValueError("name two models or more, and --n of at least 1")

    def wanted(self) -> list[Wanted]:
        """The prompts; see `prompts_of`."""
        return prompts_of(self.storybook, self.prompts, (self.reward,), lambda n: held_out_prompts(n, self.seed))

    def files(self) -> list[RewardFile]:
        """What each model has been judged by so far.

        Raises:
            FileNotFoundError: there is no such model.
            ValueError: a file is of another comparison.
        """
        about = {"reward": self.reward, "n": self.n, "seed": self.seed}
        about["sampling"] = "the model's own" if self.as_shown else LEARNT
        about["prompts"] = "storybook" if self.prompts is None else str(self.prompts)
        files = []
        for model in self.models:
            number = model_hash(resolve_model(model))
            path = self.out / f"{number}{'-shown' if self.as_shown else ''}.txt"
            files.append(RewardFile(path, about | {"model_hash": number}))
        return files


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(WinRateCommand, PROG, arguments)
    with user_errors(PROG):
        wanted, files = command.wanted(), command.files()
        reward = reward_named(command.reward)
    for model, file in zip(command.models, files, strict=True):
        left = wanted[len(file.values) :]
        if not left:
            continue
        engine = ChatEngine.load(model, command.device)
        drawn = None if command.as_shown else engine.image_sampling(**LEARNT)
        first = command.seed + len(file.values) * command.n
        with tqdm(total=len(wanted), initial=len(file.values), unit="prompt", desc=model, file=sys.stderr) as bar:
            for value in rewards(engine, left, reward, command.n, first, drawn):
                file.add(value)
                bar.update()
    before = files[0].values[: len(wanted)]
    for model, file in zip(command.models[1:], files[1:], strict=True):
        sys.stdout.write(markdown(model, by_kind(wanted, before, file.values[: len(wanted)])) + "\n\n")


if __name__ == "__main__":
    main()
