"""Prompts to preferences: n pictures of every prompt, and which of them is better than which.

In: an engine and prompts. Out: rows in a `PreferenceFolder`. The best picture by a reward is chosen over the worst; or
a picture from elsewhere is chosen over one of the model's own, as VARGPT-v1.1 (arXiv 2504.02949, section 3) pairs its
samples with those of stronger models. Both replies of a pair say the same words, so that only pictures differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image
from tqdm import tqdm

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.cases import practice_cases
from data_recipes.storybook.judging.scoring import meets, reading_of
from data_recipes.storybook.language.captions import parse_canonical
from data_recipes.storybook.world.layout import is_possible
from training.preferences.rewards import Reward, reward_named
from vargpt.assistant.model import round_up
from vargpt.chat.engine import ChatEngine
from vargpt.pictures.album import INDEX, read_prompts
from vargpt.pictures.files import open_picture
from vargpt.pictures.preference_rows import Preference, PreferenceFolder
from vargpt.types import ChatRequest, ImagePart, ImageSampling, Message, TextPart, TurnFinished

PAGE_STEP = 32  # the renderer draws multiples of it, in px


@dataclass(frozen=True)
class Wanted:
    """A conversation that asks for a picture, and what a reward must know of it: columns by name."""

    messages: tuple[Message, ...]
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The words of the last message."""
        return self.messages[-1].text


class Answers(Protocol):
    """What is needed of a `ChatEngine`."""

    def reply_batch(self, requests: Sequence[ChatRequest]) -> list[TurnFinished]:
        """Several conversations answered together."""


Better = Callable[[Wanted, Message], Image | None]  # (what was asked, a reply of the model) -> a picture from elsewhere


@dataclass(frozen=True)
class Tried:
    """One prompt that was drawn: the pair it gave, if any, and what the reward said of the pictures, if asked."""

    number: int
    row: Preference | None
    scores: tuple[float, ...] = ()


def storybook_prompts(n: int, seed: int = 0) -> list[Wanted]:
    """Requests of the storybook that hold nothing of its evaluation."""
    return [Wanted((Message.of("user", case.request),), {"case": case}) for case in practice_cases(n, seed)]


def file_prompts(path: Path) -> list[Wanted]:
    """One prompt per line of a text file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no prompt.
    """
    return [Wanted((Message.of("user", prompt),)) for prompt in read_prompts(path)]


def prompts_of(
    storybook: int | None, file: Path | None, rewards: Sequence[str], requests: Callable[[int], list[Wanted]]
) -> list[Wanted]:
    """The prompts that a command names, in one of two ways: as many `requests` of the storybook, or those of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: both ways or none; no prompts; the storybook's judge shall judge those of a file.
    """
    if (storybook is None) == (file is None):
        raise ValueError("name the prompts by one of --storybook and --prompts")
    if storybook is not None:
        return requests(storybook)
    assert file is not None
    if "storybook" in rewards:
        raise ValueError("the storybook's judge knows only the requests of --storybook")
    return file_prompts(file)


def told_apart(wanted: Sequence[Wanted], path: Path) -> list[Wanted]:
    """Those prompts that a folder of preferences, made from these very prompts, has a pair of.

    Where all pictures of a prompt are equally good, there is nothing to learn from comparing them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no pair, or is of other prompts.
    """
    pairs = PreferenceFolder.existing(path).pairs
    for number, words in pairs.items():
        if number >= len(wanted) or wanted[number].prompt != words:
            raise ValueError(f"{path} is of other prompts (number {number} is {words!r}); make it with the same seed")
    return [wanted[number] for number in sorted(pairs)]


def pictures_from(folder: Path) -> Better:
    """Pictures of another model by prompt, from a folder with an `index.jsonl` as `vargpt draw --from` writes it.

    A line is {"prompt": ..., "files": [...]}; the first file counts.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: a line of it cannot be read.
    """
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(f'{folder} holds no {INDEX}, of lines like {{"prompt": ..., "files": [...]}}')
    files: dict[str, Path] = {}
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            if entry["files"]:
                files.setdefault(entry["prompt"], folder / entry["files"][0])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{index}, line {number} is not {{"prompt": ..., "files": [...]}}') from None

    def picture(wanted: Wanted, reply: Message) -> Image | None:
        file = files.get(wanted.prompt)
        return None if file is None else open_picture(file)

    return picture


def announced_pages() -> Better:
    """The page that the model itself announced, drawn by the storybook's renderer in the size of the model's own
    picture (sides rounded up to what it draws); none where the model announced wrongly.
    """

    def picture(wanted: Wanted, reply: Message) -> Image | None:
        try:
            scene = parse_canonical(reply.text)
        except ValueError:
            return None
        if not is_possible(scene) or not meets(reading_of(scene), wanted.columns["case"].prompt):
            return None
        side = max((max(part.image.size) for part in reply.images), default=2 * PAGE_STEP)
        return render(scene, round_up(side, PAGE_STEP))

    return picture


def build(
    engine: Answers,
    wanted: Sequence[Wanted],
    folder: PreferenceFolder,
    *,
    n: int,
    seed: int = 0,
    reward: Reward | None = None,
    better: Better | None = None,
    batch_size: int = 4,
    sampling: ImageSampling | None = None,
) -> Iterator[Tried]:
    """Draws `n` pictures of every prompt that the folder has no line of, and writes the lines.

    Args:
        engine: every prompt is drawn, even one that the model would rather refuse.
        wanted: the prompts; number i draws with the seeds from `seed + i * n` on.
        folder: where the rows go.
        n: pictures per prompt.
        seed: of the first picture.
        reward: without `better`, chooses the best and rejects the worst picture (no pair if they are equal). With
            it, rejects the worst, and drops the pair if what comes from elsewhere is no better.
        better: a picture from elsewhere to be chosen; without a reward, the first own picture is rejected.
        batch_size: prompts drawn together.
        sampling: how pictures are drawn; None = as the model does by itself.

    Raises:
        ValueError: neither reward nor pictures from elsewhere, or nothing to compare.
    """
    if reward is None and better is None:
        raise ValueError("preferences come from a reward or from pictures from elsewhere; name one")
    if n < (2 if better is None else 1):
        raise ValueError(f"a preference compares two pictures, got n={n}")
    tried = folder.tried
    waiting = [number for number in range(len(wanted)) if number not in tried]
    for start in range(0, len(waiting), batch_size):
        numbers = waiting[start : start + batch_size]
        requests = [
            ChatRequest(
                messages=wanted[number].messages,
                route="image",
                n=n,
                seed=seed + number * n,
                image_sampling=sampling,
            )
            for number in numbers
        ]
        for number, turn in zip(numbers, engine.reply_batch(requests), strict=True):
            done = compare(number, wanted[number], turn.message, reward, better)
            folder.add(number, done.row)
            yield done


def compare(number: int, wanted: Wanted, reply: Message, reward: Reward | None, better: Better | None) -> Tried:
    """The pair that the pictures of one reply give."""
    own = [replied(reply, part) for part in reply.images]
    scores = scored(wanted, own, reward)
    worst = 0 if reward is None else scores.index(min(scores))
    if better is None:
        best = scores.index(max(scores))
        row = Preference(wanted.messages, own[best], own[worst], (scores[best], scores[worst]))
        return Tried(number, row if scores[best] > scores[worst] else None, scores)
    image = better(wanted, reply)
    if image is None:
        return Tried(number, None, scores)
    chosen = replied(reply, ImagePart(image))
    if reward is None:
        return Tried(number, Preference(wanted.messages, chosen, own[worst]))
    pair = (scored(wanted, [chosen], reward)[0], scores[worst])
    return Tried(number, Preference(wanted.messages, chosen, own[worst], pair) if pair[0] > pair[1] else None, scores)


def replied(reply: Message, part: ImagePart) -> Message:
    """What was said before the pictures of a reply, and one picture."""
    first = next(place for place, one in enumerate(reply.parts) if isinstance(one, ImagePart))
    words = [one for one in reply.parts[:first] if isinstance(one, TextPart)]
    settings = part.settings | {"alternative": 0} if part.settings else part.settings
    return Message("assistant", (*words, replace(part, settings=settings)))


def scored(wanted: Wanted, replies: Sequence[Message], reward: Reward | None) -> tuple[float, ...]:
    """What a reward says of each reply's picture; nothing without one."""
    if reward is None:
        return ()
    columns = {name: [value] * len(replies) for name, value in wanted.columns.items()}
    images = [reply.images[0].image for reply in replies]
    return tuple(reward([wanted.prompt] * len(replies), images, **columns))


# -- the command -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """What `vargpt prefer` was asked for, in its own words.

    Raises:
        FileNotFoundError: a file or folder is not there.
        ValueError: something is missing, or does not fit together.
    """

    prompts: Path | None
    storybook: int | None
    n: int
    reward: str | None
    chosen_from: str | None
    seed: int
    batch_size: int
    temperature: float | None = None  # None = the model's own, at which pictures of one prompt may be too much alike
    guidance: float | None = None  # likewise; 1 draws from the very distribution whose log-probabilities are learnt

    def __post_init__(self) -> None:
        if (self.prompts is None) == (self.storybook is None):
            raise ValueError("say what to draw: --prompts FILE or --storybook N")
        if self.reward is None and self.chosen_from is None:
            raise ValueError("say what is better: --reward or --chosen-from, or both")
        if self.storybook is None and "storybook" in (self.reward, self.chosen_from):
            raise ValueError("the storybook's judge and renderer knows only the requests of --storybook")
        if min(self.batch_size, 1 if self.storybook is None else self.storybook) < 1:
            raise ValueError("--batch-size and --storybook are at least 1")

    def wanted(self) -> list[Wanted]:
        if self.prompts is not None:
            return file_prompts(self.prompts)
        return storybook_prompts(self.storybook or 0, self.seed)

    def better(self) -> Better | None:
        if self.chosen_from is None:
            return None
        return announced_pages() if self.chosen_from == "storybook" else pictures_from(Path(self.chosen_from))

    def about(self, engine: ChatEngine) -> dict[str, Any]:
        """What must not change when a folder is continued; more prompts of the same kind may come."""
        fields = {name: getattr(self, name) for name in ("n", "reward", "chosen_from", "seed", "temperature")}
        if self.guidance is not None:
            fields["guidance"] = self.guidance
        prompts = "storybook" if self.prompts is None else str(self.prompts)
        return fields | {"prompts": prompts, "model": engine.model_name, "model_hash": engine.model_hash}


def run(order: Order, opened: Callable[[], ChatEngine], out: Path) -> str:
    """Carries an order out, with a progress bar; one line about what came of it."""
    reward = None if order.reward is None else reward_named(order.reward)
    wanted, better = order.wanted(), order.better()  # mistakes show before the model is loaded
    engine = opened()
    folder = PreferenceFolder.continued(out, order.about(engine))
    with tqdm(total=len(wanted), initial=len(folder.tried), unit="prompt", file=sys.stderr) as bar:
        asked = {"temperature": order.temperature, "guidance_scale": order.guidance}
        changes = {name: value for name, value in asked.items() if value is not None}
        sampling = engine.image_sampling(**changes) if changes else None
        for _ in build(
            engine, wanted, folder, n=order.n, seed=order.seed, reward=reward, better=better,
            batch_size=order.batch_size, sampling=sampling,
        ):  # fmt: skip
            bar.update()
    return f"{len(folder)} pairs from {len(folder.tried)} prompts in {out}"
