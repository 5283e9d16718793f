"""What an adapter changed: the same requests before and after it, and what must not have changed.

In: a chat engine (with the adapter or without), somebody's pictures. Out: `Measured`: how often the thing is drawn when
it is asked for, how well held-out pictures are predicted, and the storybook's scores as a check for forgetting.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image

from data_recipes.storybook.language.captions import canonical
from data_recipes.storybook.language.drawing_prompts import sample_upload
from data_recipes.storybook.world.scene import Scene
from training.data import BatchSettings, Row, collate
from training.finetune.own_conversations import phrase_of, rehearsed, request
from training.finetune.own_pictures import Example, OwnPictures, Topic
from training.loop import LoopSettings, to_device
from training.supervised import SftSettings, make_losses
from vargpt.chat.engine import ChatEngine
from vargpt.types import ChatRequest, Message

Judge = Callable[[Image.Image], bool]
CATEGORIES = ("single_object", "counting", "colours", "background", "ask", "route")
TOGETHER = 16  # requests or conversations at once
HURRIED = 4  # the same where time is short: after each of them somebody looks at the clock
WISHES_SHARE = 0.3  # of the time to measure in, where it is limited
GENERAL = 48  # storybook conversations of which the loss is taken
FINGERPRINT_PROMPTS = ("draw a fox next to a tree", "a red car at night")
STILL = SftSettings(  # a loss without chance: nothing hidden, nothing flipped, every token alike
    loop=LoopSettings(total_steps=1, learning_rate=0.0),
    batches=BatchSettings(),
    flip_strength=0.0,
    null_rate=0.0,
    no_text_rate=0.0,
    no_image_rate=0.0,
    rebuilt_rate=0.0,
    detail=0.0,
)


@dataclass(frozen=True)
class Shown:
    """One request and the reply to it."""

    prompt: str
    said: str
    picture: Image.Image | None


@dataclass(frozen=True)
class Measured:
    """Shares (0 to 1) and losses (nats) by name; scores of the storybook; replies to show; what the base draws, hashed.

    `fingerprint` is of the bits that are drawn with every adapter off.
    """

    numbers: dict[str, float]
    storybook: dict[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    shown: tuple[Shown, ...] = ()

    def save(self, folder: Path) -> None:
        """Keeps it for a run that goes on later. Inverse: `read_measured`."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(self.shown):
            if one.picture is not None:
                one.picture.save(folder / f"{number:03d}.png")
        content = {
            "numbers": self.numbers,
            "storybook": self.storybook,
            "fingerprint": self.fingerprint,
            "shown": [[one.prompt, one.said] for one in self.shown],
        }
        (folder / "measured.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def read_measured(folder: Path) -> Measured | None:
    """What `Measured.save` kept; None if nothing was."""
    file = folder / "measured.json"
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    shown = []
    for number, (prompt, said) in enumerate(content["shown"]):
        path = folder / f"{number:03d}.png"
        picture = Image.open(path).convert("RGB") if path.is_file() else None
        shown.append(Shown(prompt, said, picture))
    return Measured(content["numbers"], content["storybook"], content["fingerprint"], tuple(shown))


def measure(
    engine: ChatEngine,
    own: OwnPictures,
    topic: Topic,
    rehearse: bool,
    wishes: int = 24,
    check: int = 32,
    judge: Judge | None = None,
    seconds: float = math.inf,
) -> Measured:
    """Measures an engine as it answers by default.

    How much was measured is among the numbers ("wishes", "check"), so that a second measurement can be of the same.

    Args:
        engine: with its adapters, if any, on by default.
        own: pictures in the size that the model draws.
        topic: what they show.
        rehearse: the model comes from the storybook world: check that it has not forgotten it.
        wishes: requests for what is to be learnt.
        check: storybook cases per category; 0 = leave this check out.
        judge: whether a drawn picture shows it, if somebody can tell.
        seconds: so long this may take; fewer requests and cases are measured if need be, four requests at least.
    """
    started = time.perf_counter()
    examples = own.held_out or own.learnt
    shown = drawn_wishes(engine, examples, topic, wishes, seconds * WISHES_SHARE)
    pace = (time.perf_counter() - started) / len(shown)
    numbers = {"drawn": sum(one.picture is not None for one in shown) / len(shown), "wishes": float(len(shown))}
    if topic != Topic():
        named = [one.picture is not None and topic.is_named_in(one.said) for one in shown]  # a refusal names it too
        numbers["named"] = sum(named) / len(shown)
    if judge is not None:
        numbers["recognised"] = recognised(shown, judge)
        if rehearse and topic.is_style and examples[0].before is None:
            scenes = other_scenes(examples[0], topic, len(shown))
            elsewhere = drawn_wishes(engine, scenes, topic, len(shown))
            numbers["recognised_elsewhere"] = recognised(elsewhere, judge)
    numbers |= {f"own_{name}": value for name, value in losses(engine, [told(one, topic) for one in examples]).items()}
    storybook: dict[str, float] = {}
    if rehearse:
        side = engine.model.config.layout().width
        general = [rehearsed(1_000_000 + number, topic, side) for number in range(GENERAL)]
        numbers |= {f"general_{name}": value for name, value in losses(engine, general).items()}
        left = seconds - (time.perf_counter() - started)
        if not math.isinf(left):  # a case takes about as long as a request
            check = max(0, min(check, int(left / (pace * len(CATEGORIES)))))
        if check:
            storybook = storybook_scores(engine, check)
        numbers["check"] = float(check)
    numbers["seconds"] = time.perf_counter() - started
    return Measured(numbers, storybook, fingerprint(engine), tuple(shown))


def recognised(shown: Sequence[Shown], judge: Judge) -> float:
    """The share of requests that brought a picture which the judge takes for what was asked."""
    return sum(one.picture is not None and bool(judge(one.picture)) for one in shown) / len(shown)


def other_scenes(example: Example, topic: Topic, count: int) -> list[Example]:
    """Pages of the storybook in the style that is learnt, of which only the captions count.

    A style is wanted of everything, and the held-out pictures of a folder are few.
    """
    pages = [sample_upload(random.Random(f"other-scene-{number}"), "heldout") for number in range(count)]
    captions = [canonical(Scene(page.groups, page.background)) for page in pages]
    return [replace(example, caption=topic.completed(caption)) for caption in captions]


def drawn_wishes(
    engine: ChatEngine, examples: Sequence[Example], topic: Topic, count: int, seconds: float = math.inf
) -> list[Shown]:
    """Replies to requests in words that training did not use, half of the time; one seed each.

    After so many `seconds` no more are begun.
    """
    started, together = time.perf_counter(), TOGETHER if math.isinf(seconds) else HURRIED
    prompts: list[Message] = []
    for number in range(count):
        rng = random.Random(f"wish-{number}")
        example = rng.choice(examples)
        if example.before is not None and example.instruction is not None:
            prompts.append(Message.of("user", example.before, example.instruction))
        else:
            prompts.append(Message.of("user", request(rng, example, topic, "heldout")))
    shown = []
    for start in range(0, count, together):
        if start and time.perf_counter() - started > seconds:
            break
        asked = [
            ChatRequest(messages=(prompt,), seed=start + place)
            for place, prompt in enumerate(prompts[start : start + together])
        ]
        for prompt, turn in zip(prompts[start:], engine.reply_batch(asked), strict=False):
            images = turn.message.images
            shown.append(Shown(prompt.text, turn.message.text, images[0].image if images else None))
    return shown


def told(example: Example, topic: Topic) -> tuple[Message, ...]:
    """A conversation in which the example is asked for with all that its caption says."""
    answer = Message.of("assistant", example.caption, example.picture)
    if example.before is not None and example.instruction is not None:
        return Message.of("user", example.before, example.instruction), answer
    return Message.of("user", f"draw {phrase_of(example.caption, topic)}"), answer


@torch.no_grad()
def losses(engine: ChatEngine, conversations: Sequence[Sequence[Message]]) -> dict[str, float]:
    """Mean loss of the assistant's words per token and of its pictures per bit, in nats, with the default adapters."""
    model, processor = engine.model, engine.processor
    layout = model.config.layout()
    losses_of = make_losses(model, layout, STILL)
    rows = [
        Row(processor.conversation_ids(messages, layout.num_tokens), number)
        for number, messages in enumerate(conversations)
    ]
    total = {"text_loss": 0.0, "image_loss": 0.0}
    low = torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
    with low, engine.adapters.switched_on(engine.adapters.default):
        for start in range(0, len(rows), TOGETHER):
            batch = to_device(collate(rows[start : start + TOGETHER], processor, rows), model.device)
            _, sums = losses_of(model, batch, 0)
            total = {name: value + float(sums[name]) for name, value in total.items()}
    if not any(row.encoded.drawn for row in rows):
        del total["image_loss"]
    return total


def storybook_scores(engine: ChatEngine, cases: int) -> dict[str, float]:
    """Shares of right answers by category, of equal cases for equal `cases`, and their mean."""
    from data_recipes.storybook.judging.judge import Judge as StorybookJudge
    from data_recipes.storybook.judging.scoring import Storybook
    from vargpt.evaluation.base import Report
    from vargpt.evaluation.storybook import evaluate, round_trip

    world = Storybook(StorybookJudge.of_side(engine.model.config.layout().width))
    *_, report = evaluate(engine, world, round_trip(engine), cases, CATEGORIES, controls=1)
    assert isinstance(report, Report)
    scores = {
        row.name if row.task == "draw" else row.task: row.score.value
        for row in report.rows
        if row.task == "draw" or row.name == "all"
    }
    return scores | {"mean": sum(scores.values()) / len(scores)}


def fingerprint(engine: ChatEngine) -> str:
    """A hash of the bits and words of a few drawings with every adapter off."""
    digest = hashlib.sha256()
    for prompt in FINGERPRINT_PROMPTS:
        message = engine.reply(ChatRequest(messages=(Message.of("user", prompt),), route="image", adapter=())).message
        digest.update(message.text.encode())
        for part in message.images:
            assert part.tokens is not None
            digest.update(part.tokens.flat().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
