"""The shipped nano, from nothing: both tokenizers, language, sight, understanding, supervised fine-tuning, export.

    python -m training.recipes.nano --run-dir runs/nano [--minutes 90] [--export vargpt/checkpoints/nano]

Every stage continues where it stopped: run the command again after an interruption. On two CPU cores with bf16
arithmetic the image tokenizer takes 7 minutes, language 8, sight 11 of one core, understanding 18, fine-tuning about
four hours. docs/nano.md holds the numbers to expect, docs/training.md how the shipped weights came about.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from data_recipes.storybook.cells import WORDS, cell_labels
from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.language.drawing_prompts import sample_drawing, sample_upload
from data_recipes.storybook.language.drawing_requests import phrase
from data_recipes.storybook.samples import make_sample, text_corpus
from data_recipes.storybook.script_messages import drawing
from training import vit_pretraining
from training.command_line import UNNAMED, read_command
from training.data import BatchSettings, MakeMessages
from training.distributed import is_main, started_processes
from training.loop import Finished, LoopSettings
from training.recipes.nano_tokenizer import nano_tokenizer
from training.stages import learn_only
from training.supervised import SftSettings, export, train
from training.tokenizer.trainer import TokenizerSettings, load_tokenizer
from training.tokenizer.trainer import train as train_tokenizer
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor, square_image_processor
from vargpt.assistant.text_tokenizer import train_text_tokenizer
from vargpt.chat.engine import ChatEngine
from vargpt.presets import nano as nano_config
from vargpt.published.families import load
from vargpt.types import ChatRequest, Message

logger = logging.getLogger(__name__)

VOCAB_SIZE = 2048
NUM_TEXTS = 20_000
PROMPTS = (
    "draw a fox next to a pine tree at night",
    "draw a red car",
    "three apples on a beach",
    "paint a blue balloon above a house",
    "a cat and a dog in the snow",
    "five yellow stars",
    "draw a green book in pixel art style",
    "a large elephant in a desert",
)


def nano_sft() -> SftSettings:
    """Supervised fine-tuning of nano on the mixed storybook stream, two CPU cores with bf16 arithmetic.

    Batches of about 32 conversations, equal in work. The averaged weights are what is exported.
    """
    return SftSettings(
        loop=LoopSettings(
            total_steps=16_000,
            learning_rate=1.2e-3,
            warmup_steps=150,
            final_lr_ratio=0.02,
            weight_decay=0.03,
            betas=(0.9, 0.98),
            optimizer="muon",
            ema_decay=0.998,
            sample_every=500,
            save_every_minutes=3.0,
        ),
        batches=BatchSettings(texts_per_pool=192, batches_per_pool=11, read_back_rate=0.12, all_slots_every=4),
        flip_strength=0.0,
        detail=40.0,
        change=3.0,
        compiled=True,
    )


Settings = TypeVar("Settings", SftSettings, vit_pretraining.SightSettings, TokenizerSettings)

DRAWING_SAMPLES = 250_000  # of the first part of fine-tuning
DRAWING_SHARE = 0.66
OTHER_MIXTURE = {"edit": 0.42, "dialogue": 0.22, "ask": 0.18, "describe": 0.10, "talk": 0.08}  # the rest of that part
LATER_MIXTURE = {"draw": 0.22, "edit": 0.36, "dialogue": 0.18, "ask": 0.19, "describe": 0.03, "talk": 0.02}
CROWDS = (0.3, 0.3, 0.4)  # how often such a drawing shows one, two, three groups of things
LANGUAGE_MIXTURE = {"draw": 0.34, "dialogue": 0.22, "talk": 0.14, "told": 0.30}
SEEING_MIXTURE = {"describe": 0.25, "ask": 0.40, "edit": 0.20, "dialogue": 0.15}


def nano_language() -> SftSettings:
    """Language alone, before pictures come in: from what is asked to the sentence that says what will be drawn.

    Conversations without their pictures are twenty times cheaper, and a batch holds many times more of them.
    """
    return SftSettings(
        loop=LoopSettings(
            total_steps=1200,
            learning_rate=2e-3,
            warmup_steps=60,
            final_lr_ratio=0.5,
            weight_decay=0.03,
            betas=(0.9, 0.98),
            ema_decay=0.0,
            save_every_minutes=3.0,
        ),
        batches=BatchSettings(pool_size=1024, batches_per_pool=12, read_back_rate=0.0, text_only=True),
    )


def nano_sight() -> vit_pretraining.SightSettings:
    """The ViT alone, naming what stands in each cell: 160,000 pages in 10 minutes of one core."""
    return vit_pretraining.SightSettings(
        loop=LoopSettings(
            total_steps=2500,
            learning_rate=1e-3,
            warmup_steps=50,
            weight_decay=0.03,
            betas=(0.9, 0.98),
            optimizer="muon",
            ema_decay=0.0,
            save_every_minutes=3.0,
        )
    )


def nano_understanding() -> SftSettings:
    """ViT and language model together: descriptions, answers, what an edit will show. Nothing is drawn yet."""
    return SftSettings(
        loop=LoopSettings(
            total_steps=1000,
            learning_rate=1e-3,
            warmup_steps=50,
            final_lr_ratio=0.3,
            weight_decay=0.03,
            betas=(0.9, 0.98),
            optimizer="muon",
            ema_decay=0.0,
            save_every_minutes=3.0,
        ),
        batches=BatchSettings(pool_size=768, texts_per_pool=256, batches_per_pool=12, read_back_rate=0.3, max_drawn=0),
    )


@dataclass(frozen=True, kw_only=True)
class Beginnings:
    """The stages before fine-tuning; the text tokenizer learns from `num_texts`."""

    num_texts: int
    tokenizer: TokenizerSettings
    language: SftSettings
    sight: vit_pretraining.SightSettings
    understanding: SftSettings


def nano_beginnings() -> Beginnings:
    """Both tokenizers, then language, sight and understanding, each as its recipe says."""
    return Beginnings(
        num_texts=NUM_TEXTS,
        tokenizer=nano_tokenizer(),
        language=nano_language(),
        sight=nano_sight(),
        understanding=nano_understanding(),
    )


def make_processor(text_tokenizer_dir: Path, num_texts: int) -> VargptProcessor:
    """Nano's processor; the text tokenizer is learnt once and kept in the run directory."""
    if (text_tokenizer_dir / "tokenizer.json").is_file():
        return VargptProcessor.from_pretrained(text_tokenizer_dir)
    tokenizer = train_text_tokenizer(islice(text_corpus(num_texts), num_texts), VOCAB_SIZE)
    template = Path(__file__).parents[2] / "vargpt" / "assistant" / "chat_template.jinja"
    processor = VargptProcessor(
        square_image_processor(64, patch_size=8, merge_size=1),
        tokenizer,
        chat_template=template.read_text(),
        fixed_size=64,
        max_context=2048,
    )
    processor.save_pretrained(text_tokenizer_dir)
    return processor


def make_model(processor: VargptProcessor, image_tokenizer: Path, seed: int) -> VARGPT:
    """Fresh weights around the trained image tokenizer."""
    torch.manual_seed(seed)
    model = VARGPT(nano_config(processor.special, VOCAB_SIZE))
    model.image_tokenizer.load_state_dict(load_tokenizer(image_tokenizer).state_dict())
    return model


def page_of(sample_id: int) -> tuple[Image.Image, dict[str, np.ndarray]]:
    """A page, and what stands in each of its cells."""
    scene = sample_upload(random.Random(f"sight-{sample_id}"))
    return render(scene), cell_labels(scene)


def seeing_messages_of(sample_id: int) -> tuple[Message, ...]:
    return make_sample(2_000_000 + sample_id, mixture=SEEING_MIXTURE).messages


def language_messages_of(sample_id: int) -> tuple[Message, ...]:
    return make_sample(sample_id, mixture=LANGUAGE_MIXTURE).messages


def more_language(sample_id: int) -> tuple[Message, ...]:
    """Language goes on beside the pictures, with samples that its own stage did not reach."""
    return language_messages_of(1_000_000 + sample_id)


def crowded_drawing(rng: random.Random, resolution: int = 64) -> tuple[Message, ...]:
    """A drawing with more things on it than people ask for: three are as quickly drawn as one, and teach more."""
    wish, scene = sample_drawing(rng, "train", rng.choices((1, 2, 3), CROWDS)[0])
    return Message.of("user", phrase(rng, wish, "train")), drawing(scene, resolution)


def messages_of(sample_id: int) -> tuple[Message, ...]:
    """Mostly drawing at first, which takes longest to learn; mostly changes and dialogues later."""
    if sample_id >= DRAWING_SAMPLES:
        return make_sample(sample_id, mixture=LATER_MIXTURE).messages
    return mostly_drawing(sample_id)


def mostly_drawing(sample_id: int, resolution: int = 64) -> tuple[Message, ...]:
    """Crowded drawings, and beside them all else that there is to learn."""
    rng = random.Random(f"drawing-{sample_id}")
    if rng.random() < DRAWING_SHARE:
        return crowded_drawing(rng, resolution)
    return make_sample(sample_id, resolution=resolution, mixture=OTHER_MIXTURE).messages


def save_samples(model: VARGPT, processor: VargptProcessor, path: Path) -> None:
    """A sheet of what the model draws from `PROMPTS`, and beside it what it says."""
    engine = ChatEngine(model, processor)
    requests = [ChatRequest(messages=(Message.of("user", prompt),), route="image", seed=0) for prompt in PROMPTS]
    replies = [reply.message for reply in engine.reply_batch(requests)]
    pictures = [part.image for reply in replies for part in reply.images]
    if pictures:
        sheet = pictures[0].resize((128 * len(pictures), 128))
        for index, picture in enumerate(pictures):
            sheet.paste(picture.resize((128, 128), 0), (128 * index, 0))
        sheet.save(path)
    texts = [f"{prompt} -> {reply.text}" for prompt, reply in zip(PROMPTS, replies, strict=True)]
    path.with_suffix(".txt").write_text("\n".join(texts) + "\n")


def steps_done(run_dir: Path) -> int:
    """How far a run has come, by its log; 0 for none."""
    log = run_dir / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return json.loads(lines[-1])["step"] if lines else 0


class Budget:
    """Minutes shared by all stages; None is no limit."""

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float | None:
        """Minutes, at least 0."""
        return None if self.end is None else max(0.0, (self.end - time.monotonic()) / 60)

    def of(self, loop: LoopSettings) -> LoopSettings:
        """The same loop, stopped when the minutes are over."""
        return dataclasses.replace(loop, time_budget_minutes=self.left)

    def within(self, settings: Settings) -> Settings:
        """The settings of a stage, stopped when the minutes are over."""
        return dataclasses.replace(settings, loop=self.of(settings.loop))


def learn_image_tokenizer(run_dir: Path, recipe: TokenizerSettings, budget: Budget) -> bool:
    """Whether the image tokenizer is finished."""
    if steps_done(run_dir) >= recipe.loop.total_steps:
        return True
    return train_tokenizer(budget.within(recipe), run_dir).done


def learn_organs(
    model: VARGPT,
    organs: Sequence[str],
    processor: VargptProcessor,
    make_messages: MakeMessages,
    settings: SftSettings,
    run_dir: Path,
    make_texts: MakeMessages | None = None,
) -> bool:
    """Trains these organs alone, in place; whether that is finished. The others keep their weights."""
    learner = copy.deepcopy(model)  # its state holds every organ, and a later run may begin with others
    learn_only(learner, organs)
    finished = train(learner, processor, make_messages, settings, run_dir, None, make_texts)
    for organ in organs:
        getattr(model, organ).load_state_dict(getattr(learner, organ).state_dict())
    return finished.done


def learn_language(model: VARGPT, processor: VargptProcessor, settings: SftSettings, run_dir: Path) -> bool:
    return learn_organs(model, ("language_model",), processor, language_messages_of, settings, run_dir)


def learn_sight(
    model: VARGPT, processor: VargptProcessor, settings: vit_pretraining.SightSettings, run_dir: Path
) -> bool:
    words = vit_pretraining.word_vectors(model, processor, WORDS)
    return vit_pretraining.train(model, page_of, words, settings, run_dir).done


def learn_to_understand(model: VARGPT, processor: VargptProcessor, settings: SftSettings, run_dir: Path) -> bool:
    organs = ("vision", "vision_norm", "vision_positions", "language_model")
    return learn_organs(model, organs, processor, seeing_messages_of, settings, run_dir, more_language)


def learn_from_nothing(
    run_dir: Path, seed: int, budget: Budget, tokenizer_dir: Path | None, beginnings: Beginnings | None = None
) -> tuple[VARGPT, VargptProcessor] | None:
    """The stages before fine-tuning (None = nano's); None if the time was over before their end."""
    stages = beginnings or nano_beginnings()
    if tokenizer_dir is None:
        tokenizer_dir = run_dir / "image_tokenizer"
        if not learn_image_tokenizer(tokenizer_dir, stages.tokenizer, budget):
            return None
    processor = make_processor(run_dir / "processor", stages.num_texts)
    model = make_model(processor, tokenizer_dir / "tokenizer.safetensors", seed)
    if steps_done(run_dir) == 0:
        learnt = (
            learn_language(model, processor, budget.within(stages.language), run_dir / "language")
            and learn_sight(model, processor, budget.within(stages.sight), run_dir / "sight")
            and learn_to_understand(model, processor, budget.within(stages.understanding), run_dir / "understanding")
        )
        if not learnt:
            return None
    return model, processor


def run_nano(
    run_dir: Path,
    settings: SftSettings,
    minutes: float | None = None,
    tokenizer_dir: Path | None = None,
    start_from: Path | None = None,
    first_sample: int = 0,
) -> tuple[VARGPT, VargptProcessor, Finished] | None:
    """All stages. Returns the model with its trained (not averaged) weights and how fine-tuning ended.

    With `start_from`, a model folder (the shipped nano, say) is trained further instead of a fresh model; the stream
    then goes on at `first_sample`. None if the time was over before fine-tuning began.
    """
    budget = Budget(minutes)
    if start_from is not None:
        begun: tuple[VARGPT, VargptProcessor] | None = load(start_from, device="cpu", dtype="float32")
    else:
        begun = learn_from_nothing(run_dir, settings.loop.seed, budget, tokenizer_dir)
    if begun is None:
        return None
    model, processor = begun

    def later_messages(sample_id: int) -> tuple[Message, ...]:
        return messages_of(first_sample + sample_id)

    def later_texts(sample_id: int) -> tuple[Message, ...]:
        return more_language(first_sample + sample_id)

    def on_sample(trained: nn.Module, step: int) -> None:
        assert isinstance(trained, VARGPT)
        save_samples(trained, processor, run_dir / "samples" / f"step_{step:06d}.png")

    settings = budget.within(settings)
    return model, processor, train(model, processor, later_messages, settings, run_dir, on_sample, later_texts)


@dataclass(frozen=True, kw_only=True)
class NanoCommand:
    """Train nano from nothing, or a model further."""

    run_dir: Path = Path("runs/nano")
    """Where metrics, samples and checkpoints go."""
    tokenizer_dir: Path | None = None
    """A finished tokenizer run (default: inside the run dir)."""
    start_from: Path | None = None
    """Train this model folder further, not a fresh model."""
    first_sample: int = 0
    """Where its stream of conversations goes on."""
    export: Path | None = None
    """Model folder to write (default: model/ in the run dir)."""
    minutes: float | None = None
    """Stop (and save) after this long; the schedule stays in steps."""
    sft: Annotated[SftSettings, UNNAMED] = field(default_factory=nano_sft)

    def __post_init__(self) -> None:
        if started_processes() > 1 and self.start_from is None:
            raise ValueError("several processes train a model that is there already: give its folder with --start-from")


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(NanoCommand, "python -m training.recipes.nano", arguments)
    ended = run_nano(
        command.run_dir, command.sft, command.minutes, command.tokenizer_dir, command.start_from, command.first_sample
    )
    if ended is None or not ended[2].done:
        logger.info("stopped before the end; the same command continues")
    if ended is not None and is_main():
        model, processor, finished = ended
        folder = command.export or command.run_dir / "model"
        export(model, processor, finished.ema, folder)
        logger.info("step %d exported to %s", finished.step, folder)


if __name__ == "__main__":
    main()
