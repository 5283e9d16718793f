"""An adapter from somebody's own pictures: read them, measure, learn, save, measure again, and say what came of it.

In: `FinetuneSettings`: a folder of pictures (or two, before and after), what they show, a model. Out, in one folder:
the adapter (what `--adapter` takes), `report.md`, `sheet.png`; and `run/` with what is needed to go on after a stop.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import math
import pkgutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import nn
from transformers import AutoTokenizer

from training.autocast import words_for
from training.checkpoints import checkpoint_of, step_of
from training.data import BatchSettings
from training.finetune.forecast import ENOUGH_STEPS, Forecast, few_steps, seconds_per_step
from training.finetune.lora_targets import Learning, LoraSettings, begin
from training.finetune.own_conversations import OwnConversations
from training.finetune.own_measure import Judge, Measured, drawn_wishes, measure, read_measured
from training.finetune.own_pictures import OwnPictures, Topic, all_fitted, joined, read_folder, read_pairs
from training.finetune.own_report import Outcome, strip, summary, write_report
from training.loop import Finished, LoopSettings
from training.supervised import Apart, SftSettings, train
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.engine import ChatEngine
from vargpt.loading.adapters import WEIGHTS, AdapterCard, lora_config_type, save_adapter
from vargpt.loading.models import default_model_path, model_hash
from vargpt.loading.quantization import Quantization
from vargpt.published.families import load, resolve_model
from vargpt.types import ChatRequest, Message

logger = logging.getLogger(__name__)

PREVIEWS = 4  # sheets of samples on the way
PREVIEWED = 6  # pictures on each
STYLE_FLIPS = 0.3  # of the bits of a scale, at most, in pictures of a style
MEASURING = 0.2  # of the time given, at most
SAME = "settings.json"  # of a run that goes on: what must not have changed
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """One run. `minutes` of learning only stop it; the schedule is in steps. Measuring takes a fifth of that at most.

    `rehearse=None` mixes in storybook conversations exactly for models that come from that world. `describe` lets the
    model caption what has no caption. `check` storybook cases per category and `wishes` requests are measured before
    and after. `workers` processes make the batches. Where there is rehearsal, `own_share` of the conversations are
    about the pictures.
    """

    topic: Topic
    out: Path
    folder: Path | None = None
    pairs: tuple[Path, Path] | None = None
    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: Quantization | None = None
    steps: int = 1000
    minutes: float | None = None
    learning_rate: float = 2e-3
    lora: LoraSettings = LoraSettings()
    describe: bool = False
    rehearse: bool | None = None
    own_share: float = 0.33
    wishes: int = 24
    check: int = 32
    judge: Judge | None = None
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folder is None and self.pairs is None:
            raise ValueError("name a folder of pictures, or two with --pairs BEFORE AFTER")
        if self.pairs is None and self.topic == Topic():
            raise ValueError("say what the pictures show with --name, or how they are drawn with --style")
        if self.steps < 1 or (self.minutes is not None and self.minutes <= 0):
            raise ValueError(f"at least one step and some time are needed, got {self.steps} and {self.minutes} minutes")
        if self.wishes < 1 or self.check < 0:
            raise ValueError(f"wishes >= 1 and check >= 0 are needed, got {self.wishes} and {self.check}")

    @property
    def name(self) -> str:
        """What the adapter is called."""
        return " ".join(word for word in (self.topic.name, self.topic.style) if word) or self.out.resolve().name


def recipe(settings: FinetuneSettings, rehearse: bool) -> SftSettings:
    """LoRA of a few pictures. Batches of about 24 conversations for nano, of 4 for models that are no storybook's.

    AdamW with a rate that falls to a tenth; the averaged weights are saved, so that a run that time has stopped is no
    worse off than its number of steps.
    """
    loop = LoopSettings(
        total_steps=settings.steps,
        learning_rate=settings.learning_rate if rehearse else settings.learning_rate / 10,
        warmup_steps=min(50, settings.steps // 10),
        final_lr_ratio=0.1,
        weight_decay=0.0,
        betas=(0.9, 0.98),
        ema_decay=0.98,
        time_budget_minutes=settings.minutes,
        save_every_minutes=2.0,
        # NF4 layers of a CPU cannot learn any more once they have answered
        sample_every=0 if settings.quantization == "nf4" else max(1, settings.steps // PREVIEWS),
        save_frozen=False,
        device=settings.device,
        seed=settings.seed,
    )
    if rehearse:
        batches = BatchSettings(pool_size=144, batches_per_pool=6, read_back_rate=0.1, all_slots_every=3)
    else:
        batches = BatchSettings(pool_size=32, batches_per_pool=8, read_back_rate=0.1)
    batches = dataclasses.replace(batches, num_workers=settings.workers, seed=settings.seed)
    return SftSettings(loop=loop, batches=batches, flip_strength=0.0, detail=40.0, change=3.0)


def finetune(settings: FinetuneSettings, say: Say = logger.info) -> Outcome:
    """The whole run; started again with the same settings, it goes on where it was stopped.

    Raises:
        FileNotFoundError: there is no such folder or model.
        ValueError: too few pictures, or the folder holds a run with other settings.
        ImportError: peft (or bitsandbytes) is not installed.
    """
    lora_config_type()  # what is missing shows before any work
    run_dir = settings.out / "run"
    path = resolve_model(settings.model)
    engine = ChatEngine.load(path, settings.device, settings.dtype, settings.quantization)
    own = read(settings, engine)
    say(str(own))
    rehearse = speaks_storybook(engine.processor) if settings.rehearse is None else settings.rehearse
    remember(settings, own, path, run_dir)
    before = read_measured(run_dir / "before")
    if before is None:
        say("measuring the model as it is ...")
        before = measured_before(settings, engine, own, rehearse)
        before.save(run_dir / "before")
    del engine
    gc.collect()
    started = time.monotonic()
    learning, finished = learn(settings, own, path, rehearse, say)
    seconds = time.monotonic() - started
    say("measuring what has been learnt ...")
    options = (settings.device, settings.dtype, settings.quantization)
    taught = ChatEngine.load(path, *options, adapters=[settings.out])
    wishes, check = (int(before.numbers.get(name, getattr(settings, name))) for name in ("wishes", "check"))
    after = measure(taught, own, settings.topic, rehearse, wishes, check, settings.judge)
    outcome = Outcome(
        settings.topic,
        own,
        str(learning),
        finished.step,
        settings.steps,
        seconds,
        (settings.out / WEIGHTS).stat().st_size,
        before,
        after,
        commands(settings),
        words_for(finished.autocast),
        (settings.wishes, settings.check if rehearse else 0),
    )
    write_report(outcome, settings.out)
    say(f"\n{summary(outcome)}\n\nThe report is in {settings.out / 'report.md'}")
    return outcome


def read(settings: FinetuneSettings, engine: ChatEngine) -> OwnPictures:
    """All pictures, in the size that the model draws."""

    def describe(picture: Image.Image) -> str:
        asked = Message.of("user", picture, "describe the picture")
        return engine.reply(ChatRequest(messages=(asked,), route="text", adapter=())).message.text

    parts = []
    if settings.folder is not None:
        parts.append(read_folder(settings.folder, settings.topic, describe if settings.describe else None))
    if settings.pairs is not None:
        parts.append(read_pairs(*settings.pairs, settings.topic))
    layout = engine.model.config.layout()
    return all_fitted(joined(*parts), layout.height, layout.width)


def learn(
    settings: FinetuneSettings, own: OwnPictures, path: Path, rehearse: bool, say: Say
) -> tuple[Learning, Finished]:
    """Trains the adapter on a model of its own, and saves it."""
    model, processor = load(path, settings.device, settings.dtype, settings.quantization)
    learning = begin(model, settings.lora, settings.seed)
    say(str(learning))
    run_dir, side = settings.out / "run", model.config.layout().width
    conversations = OwnConversations(own.learnt, settings.topic, rehearse, settings.own_share, side)

    def on_sample(trained: nn.Module, step: int) -> None:
        assert isinstance(trained, VARGPT)
        shown = drawn_wishes(ChatEngine(trained, processor), own.held_out or own.learnt, settings.topic, PREVIEWED)
        strip([one.picture for one in shown]).save(run_dir / "samples" / f"step_{step:06d}.png")

    learnt = recipe(settings, rehearse)
    if settings.topic.is_style:
        learnt = dataclasses.replace(learnt, apart=Apart(conversations.is_own, STYLE_FLIPS))
    for line in announced(settings, model, processor, conversations, learnt, rehearse):
        say(line)
    finished = train(model, processor, conversations, learnt, run_dir, on_sample)
    assert finished.ema is not None
    card = AdapterCard(
        name=settings.name,
        base=path.resolve().name,
        base_hash=model_hash(path),
        about={
            "name": settings.topic.name,
            "style": settings.topic.style,
            "pictures": len(own.learnt),
            "steps": finished.step,
            "rank": settings.lora.rank,
            "trained_on": settings.quantization or "whole weights",
        },
    )
    with finished.ema.applied_to(model):
        save_adapter(model, learning.slot, learning.config, card, settings.out)
    return learning, finished


def announced(
    settings: FinetuneSettings,
    model: VARGPT,
    processor: VargptProcessor,
    conversations: OwnConversations,
    learnt: SftSettings,
    storybook: bool,
) -> Iterator[str]:
    """What is said before learning starts: what fits the time, and whether a storybook model learns anything by it."""
    last = checkpoint_of(settings.out / "run")
    done = 0 if last is None else step_of(last)
    if done >= settings.steps:
        return
    if settings.minutes is not None:
        seconds = seconds_per_step(model, processor, conversations, learnt)
        plan = Forecast(seconds, settings.minutes, done, settings.steps)
        yield str(plan)
        if storybook and settings.steps >= ENOUGH_STEPS and not plan.is_enough:
            yield plan.advice
    if storybook and settings.steps < ENOUGH_STEPS:
        yield few_steps(settings.steps)


def measured_before(settings: FinetuneSettings, engine: ChatEngine, own: OwnPictures, rehearse: bool) -> Measured:
    """As much as goes into a third of the time for measuring: the same takes longer afterwards, when more is drawn."""
    seconds = math.inf if settings.minutes is None else 60 * settings.minutes * MEASURING / 3
    return measure(engine, own, settings.topic, rehearse, settings.wishes, settings.check, settings.judge, seconds)


def speaks_storybook(processor: VargptProcessor) -> bool:
    """Whether a model comes from the storybook world: it has the shipped nano's words."""
    ours = AutoTokenizer.from_pretrained(default_model_path())
    return processor.tokenizer.get_vocab() == ours.get_vocab()


def remember(settings: FinetuneSettings, own: OwnPictures, path: Path, run_dir: Path) -> None:
    """Notes what a run is made of; a folder that holds another run is not gone on with.

    Raises:
        ValueError: it does.
    """
    made_of = {
        "name": settings.topic.name,
        "style": settings.topic.style,
        "model": model_hash(path),
        "quantization": settings.quantization,
        "rank": settings.lora.rank,
        "alpha": settings.lora.alpha,
        "steps": settings.steps,
        "wishes": settings.wishes,
        "check": settings.check,
        "seed": settings.seed,
        "pictures": [[example.file, example.caption] for example in (*own.learnt, *own.held_out)],
    }
    file = run_dir / SAME
    if file.is_file():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        other = sorted(name for name, value in made_of.items() if earlier.get(name) != value)
        if other:
            raise ValueError(
                f"{settings.out} holds a run with other {', '.join(other)}; give this one another --out, "
                "or delete that folder"
            )
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made_of, indent=2), encoding="utf-8")


def named_judge(name: str | None) -> Judge | None:
    """The function of "MODULE:FUNCTION", which takes a picture and says whether it shows what was learnt.

    Raises:
        ValueError: there is none.
    """
    if name is None:
        return None
    try:
        judge = pkgutil.resolve_name(name)
        if not callable(judge):
            raise ValueError("this is no function")
        return judge
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--judge is MODULE:FUNCTION, as in my_judges:is_a_robot; {name!r}: {error}") from None


def commands(settings: FinetuneSettings) -> tuple[str, ...]:
    """How to chat with the result."""
    model = "" if settings.model is None else f" --model {settings.model}"
    shared = f"--adapter {settings.out}{model}"
    topic = settings.topic
    if topic.name is None and topic.style is None:
        return (f"vargpt chat {shared}", f"vargpt ui {shared}")
    wish = f"{topic.one if topic.name else 'a fox'}" + (f" {topic.in_style}" if topic.style else "")
    return (f"vargpt chat {shared}", f'vargpt draw "{wish}" {shared}', f"vargpt ui {shared}")
