"""The whole training program at nano's size by one command: tokenizers, SFT at 64 px, DPO, SFT at 128 px, DPO, edits.

    python -m training.recipes.nano_chain --run-dir runs/chain [--minutes 300] [--start-from vargpt/checkpoints/nano]
    python -m training.recipes.nano_chain --run-dir runs/short --short

The stages are those of VARGPT-v1.1 (`full_size.py`). Each reads the model folder of the one before and leaves its own;
started again, the command goes on where it was stopped, and finished stages are only read. After every stage the model
is measured on held-out conversations and storybook cases (`stages.jsonl`, and `stages.md` as a table, which says where
a stage did not help). `--start-from` takes a model folder in the place of the stages before the first DPO.

On two CPU cores with bf16 arithmetic all of it takes most of a day. What two hours from empty and one hour from the
shipped weights changed stands in docs/training.md.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from torch import nn

from data_recipes.storybook.samples import make_sample
from training.command_line import UNNAMED, read_command, user_errors
from training.preferences.dpo import DpoSettings
from training.preferences.dpo import train as train_dpo
from training.preferences.feedback import DECODER, leave_model
from training.preferences.prefer import build, storybook_prompts
from training.preferences.rewards import Reward, storybook_reward
from training.recipes import nano
from training.recipes.nano import Beginnings, Budget, nano_sft
from training.recipes.nano_dpo import nano_dpo
from training.stage_report import StageLog, measured
from training.stages import Stage, learn_only
from training.supervised import SftSettings, export, train
from training.surgery.grow import grow
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.engine import ChatEngine
from vargpt.loading.models import model_hash
from vargpt.pictures.preference_rows import PreferenceFolder
from vargpt.published.families import load, resolve_model
from vargpt.types import Message

logger = logging.getLogger(__name__)
PROG = "python -m training.recipes.nano_chain"

Opened = tuple[VARGPT, VargptProcessor]
EVERYTHING = (
    "vision", "vision_norm", "vision_positions", "language_model", "projector_in", "projector_out", "generator",
)  # fmt: skip
OPTIONAL = {"vision_norm", "vision_positions"}  # organs that not every model has
DRAWING = {"draw": nano.DRAWING_SHARE} | {
    kind: (1 - nano.DRAWING_SHARE) * share for kind, share in nano.OTHER_MIXTURE.items()
}
EDITING = {"edit": 0.7, "dialogue": 0.1, "draw": 0.1, "ask": 0.06, "describe": 0.02, "talk": 0.02}
FIRST, START = "1 tokenizers, language, sight", "as it came"
DRAWN_TOGETHER = 8  # prompts, while preferences are made
ROWS_AT_ONCE = 8  # pairs


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The stages as data; `--sft-128.steps 2000` changes one of them, `--beginnings.language...` the first.

    Preferences of a DPO stage come from `pictures` pictures of each of `prompts` requests, drawn at `temperature` with
    `guidance`: by default from the very distribution that DPO learns about. As nano is shown, they are mostly alike to
    the judge. `validation` held-out conversations give the losses after every stage. `num_workers` processes make
    batches.
    """

    beginnings: Beginnings
    sft_64: Stage
    dpo_64: Stage
    sft_128: Stage
    dpo_128: Stage
    edit: Stage
    prompts: int = 400
    pictures: int = 4
    temperature: float = 1.0
    guidance: float = 1.0
    validation: int = 64
    compiled: bool = True
    num_workers: int = 1
    device: str = "auto"
    seed: int = 0

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.sft_64, self.dpo_64, self.sft_128, self.dpo_128, self.edit


def nano_chain() -> Chain:
    """The first SFT is nano's own; later ones are shorter, with smaller batches of their larger pictures."""
    loop, dpo = nano_sft().loop, nano_dpo().steps
    preferences = Stage(
        name="", loss="dpo", learns=DECODER, data={"practice": 1.0}, size=(64, 64), steps=dpo.total_steps,
        batch_size=dpo.batch_size * dpo.accumulation, learning_rate=dpo.learning_rate,
        warmup_ratio=dpo.warmup_steps / dpo.total_steps,
    )  # fmt: skip
    return Chain(
        beginnings=nano.nano_beginnings(),
        sft_64=Stage(
            name="2 SFT at 64", loss="sft", learns=EVERYTHING, data=DRAWING, size=(64, 64), steps=loop.total_steps,
            batch_size=23, learning_rate=loop.learning_rate, warmup_ratio=loop.warmup_steps / loop.total_steps,
            weight_decay=loop.weight_decay,
        ),
        dpo_64=dataclasses.replace(preferences, name="3 DPO at 64", size=(64, 64)),
        sft_128=Stage(
            name="4 SFT at 128", loss="sft", learns=EVERYTHING, data=DRAWING, size=(128, 128), steps=6_000,
            batch_size=8, learning_rate=loop.learning_rate / 2, warmup_ratio=0.02, weight_decay=loop.weight_decay,
        ),
        dpo_128=dataclasses.replace(preferences, name="5 DPO at 128", size=(128, 128)),
        edit=Stage(
            name="6 editing", loss="sft", learns=EVERYTHING, data=EDITING, size=(128, 128), steps=3_000,
            batch_size=8, learning_rate=loop.learning_rate / 4, warmup_ratio=0.02, weight_decay=loop.weight_decay,
        ),
    )  # fmt: skip


def short_chain() -> Chain:
    """The same stages in about two hours of one CPU core: enough to see what each of them does, not for its result.

    Each stage of `nano_chain()` gets a part of its steps, the first ones a larger part than those that draw: without
    a tokenizer that rebuilds pages and a ViT that sees them, no later stage has anything to learn from.
    """
    chain = nano_chain()

    def shorter(stage: Stage, steps: int) -> Stage:
        return dataclasses.replace(stage, steps=steps)

    def shorter_loop(settings: nano.Settings, steps: int) -> nano.Settings:
        return dataclasses.replace(settings, loop=dataclasses.replace(settings.loop, total_steps=steps))

    begun = chain.beginnings
    beginnings = dataclasses.replace(
        begun,
        tokenizer=shorter_loop(begun.tokenizer, 2_500),
        language=shorter_loop(begun.language, 450),
        sight=shorter_loop(begun.sight, 1_200),
        understanding=shorter_loop(begun.understanding, 250),
    )
    return dataclasses.replace(
        chain,
        beginnings=beginnings,
        sft_64=dataclasses.replace(shorter(chain.sft_64, 700), warmup_ratio=0.05),
        dpo_64=shorter(chain.dpo_64, 60),
        sft_128=shorter(chain.sft_128, 120),
        dpo_128=shorter(chain.dpo_128, 30),
        edit=shorter(chain.edit, 80),
        prompts=200,
    )


# -- stages to the settings of the recipes -----------------------------------------------------------------------------


def sft_settings(stage: Stage, chain: Chain) -> SftSettings:
    """Nano's fine-tuning with the numbers of a stage: pools of as many batches, of another size."""
    recipe = nano_sft()
    loop = dataclasses.replace(
        recipe.loop,
        total_steps=stage.steps,
        learning_rate=stage.learning_rate,
        schedule=stage.schedule,
        warmup_steps=round(stage.steps * stage.warmup_ratio),
        weight_decay=stage.weight_decay,
        device=chain.device,
        seed=chain.seed,
    )
    pool = stage.batch_size * recipe.batches.batches_per_pool
    batches = dataclasses.replace(
        recipe.batches,
        pool_size=pool,
        texts_per_pool=recipe.batches.texts_per_pool * pool // recipe.batches.pool_size,
        num_workers=chain.num_workers,
        seed=chain.seed,
    )
    return dataclasses.replace(recipe, loop=loop, batches=batches, compiled=chain.compiled)


def dpo_settings(stage: Stage, chain: Chain) -> DpoSettings:
    """Nano's DPO with the numbers of a stage."""
    at_once = min(ROWS_AT_ONCE, stage.batch_size)
    steps = dataclasses.replace(
        nano_dpo().steps,
        total_steps=stage.steps,
        learning_rate=stage.learning_rate,
        batch_size=at_once,
        accumulation=max(1, round(stage.batch_size / at_once)),
        warmup_steps=round(stage.steps * stage.warmup_ratio),
        schedule=stage.schedule,
        weight_decay=stage.weight_decay,
        organs=stage.learns,
        device=chain.device,
        seed=chain.seed,
    )
    return dataclasses.replace(nano_dpo(), steps=steps)


@dataclass(frozen=True)
class Stream:
    """The conversations of a stage by number; those of DRAWING are nano's own, crowded with things.

    A class, not a closure: what makes batches may be another process.
    """

    stage: Stage
    first: int

    def __call__(self, sample_id: int) -> tuple[Message, ...]:
        assert self.stage.size is not None
        number, resolution = self.first + sample_id, self.stage.size[0]
        if self.stage.data == DRAWING:
            return nano.mostly_drawing(number, resolution)
        return make_sample(number, resolution=resolution, mixture=self.stage.data).messages


def learning_organs(model: VARGPT, stage: Stage) -> list[str]:
    """The organs of a stage that this model has.

    Raises:
        ValueError: the stage names an organ that there is not.
    """
    present = {name.split(".")[0] for name, _ in model.named_parameters()} - {"image_tokenizer"}
    unknown = set(stage.learns) - present - OPTIONAL
    if unknown:
        raise ValueError(f"{stage.name}: the model has no {', '.join(sorted(unknown))}; it has {sorted(present)}")
    return [organ for organ in stage.learns if organ in present]


def fitted(opened: Opened, stage: Stage) -> Opened:
    """The model in the size of a stage, grown if it draws half of it.

    Raises:
        ValueError: it draws another size.
    """
    layout = opened[0].config.layout()
    if (layout.height, layout.width) == stage.size:
        return opened
    if (2 * layout.height, 2 * layout.width) == stage.size:
        return grow(*opened)
    raise ValueError(
        f"{stage.name} draws pictures of {stage.size} px (height, width), and the model before it draws "
        f"{(layout.height, layout.width)}; it can be the same size or half of it"
    )


# -- one stage ---------------------------------------------------------------------------------------------------------


def fine_tune(opened: Opened, stage: Stage, number: int, chain: Chain, run_dir: Path, budget: Budget) -> bool:
    """One SFT stage; whether it is finished, and its averaged weights then lie in `run_dir`/model."""
    model, processor = opened
    learn_only(model, learning_organs(model, stage))

    def on_sample(trained: nn.Module, step: int) -> None:
        assert isinstance(trained, VARGPT)
        nano.save_samples(trained, processor, run_dir / "samples" / f"step_{step:06d}.png")

    settings = budget.within(sft_settings(stage, chain))
    stream = Stream(stage, number * 10_000_000)  # conversations that no other stage has seen
    finished = train(model, processor, stream, settings, run_dir, on_sample, nano.more_language)
    if finished.done:
        export(model, processor, finished.ema, run_dir / "model")
    return finished.done


def prefer(
    opened: Opened, before: Path, seed: int, chain: Chain, run_dir: Path, budget: Budget, reward: Reward
) -> PreferenceFolder | None:
    """Which of the model's own pictures are better; None if the time was over before all prompts were drawn."""
    wanted = storybook_prompts(chain.prompts, seed)
    sampling = dataclasses.replace(
        opened[0].config.sampling(), temperature=chain.temperature, guidance_scale=chain.guidance
    )
    about = {"model_hash": model_hash(before), "n": chain.pictures, "seed": seed}
    about |= {"temperature": chain.temperature, "guidance_scale": chain.guidance}
    folder = PreferenceFolder.continued(run_dir / "preferences", about)
    engine = ChatEngine(*opened)
    for _ in build(
        engine, wanted, folder, n=chain.pictures, seed=seed, reward=reward, batch_size=DRAWN_TOGETHER, sampling=sampling
    ):
        if budget.left == 0 and len(folder.tried) < len(wanted):
            return None
    return folder


def learn_preferences(
    opened: Opened, before: Path, stage: Stage, number: int, chain: Chain, run_dir: Path, budget: Budget, reward: Reward
) -> tuple[bool, str]:
    """One DPO stage; whether it is finished, and what there is to note."""
    model, processor = opened
    folder = prefer(opened, before, chain.seed + number, chain, run_dir, budget, reward)
    if folder is None:
        return False, ""
    note = f"{len(folder)} pairs from {chain.prompts} prompts"
    if len(folder):
        settings = dpo_settings(stage, chain)
        done = train_dpo(model, processor, folder, settings, run_dir, budget.left)
    else:
        done, note = True, note + ": nothing was learnt, the model is that of the stage before"
    if done:
        leave_model(model, processor, run_dir)
    return done, note


def begin(chain: Chain, run_dir: Path, budget: Budget) -> bool:
    """Everything before fine-tuning, from nothing; whether it is finished."""
    begun = nano.learn_from_nothing(run_dir, chain.seed, budget, None, chain.beginnings)
    if begun is not None:
        export(*begun, None, run_dir / "model")
    return begun is not None


# -- the chain ---------------------------------------------------------------------------------------------------------


def folder_of(run_dir: Path, name: str) -> Path:
    """Where a stage keeps its files: "4 SFT at 128" in "4_sft_at_128"."""
    return run_dir / "".join(letter if letter.isalnum() else "_" for letter in name.lower()).replace("__", "_")


def run_chain(
    chain: Chain,
    run_dir: Path,
    minutes: float | None = None,
    start_from: Path | None = None,
    n: int = 8,
    reward: Reward | None = None,
) -> bool:
    """All stages that are not finished yet; whether all are now.

    Args:
        chain: the stages.
        run_dir: a folder for each of them, and the table.
        minutes: shared by all stages; only stops, the schedules stay in steps. What measures a stage is not cut short.
        start_from: a model folder in the place of the first two stages.
        n: storybook cases per category after every stage; 0 = no scores.
        reward: what tells better pictures from worse ones (default: the storybook's judge).

    Raises:
        ValueError: the run was begun with another model, or sizes or organs do not fit.
        FileNotFoundError: there is no model to start from.
    """
    budget, log, reward = Budget(minutes), StageLog(run_dir), reward or storybook_reward()
    check_start(log, start_from)
    measure = partial(measured, n=n, validation=chain.validation, device=chain.device)
    if start_from is not None:
        model, stages = resolve_model(start_from), chain.stages[1:]
        if log.row(START) is None:
            log.add(measure(START, 0, model))
    else:
        folder, stages = folder_of(run_dir, FIRST), chain.stages
        model = folder / "model"
        if log.row(FIRST) is None:
            if not begin(chain, folder, budget):
                return False
            log.add(measure(FIRST, chain.beginnings.tokenizer.loop.total_steps, model))
    for number, stage in enumerate(stages, start=2 + len(chain.stages) - len(stages)):
        folder = folder_of(run_dir, stage.name)
        if log.row(stage.name) is None:
            if budget.left == 0:
                return False
            logger.info("stage %s", stage.name)
            opened = fitted(load(model, chain.device, "float32"), stage)
            if stage.loss == "dpo":
                done, note = learn_preferences(opened, model, stage, number, chain, folder, budget, reward)
            else:
                done, note = fine_tune(opened, stage, number, chain, folder, budget), ""
            if not done:
                return False
            log.add(measure(stage.name, stage.steps, folder / "model", note=note))
        model = folder / "model"
    return True


def check_start(log: StageLog, start_from: Path | None) -> None:
    """Refuses to go on with a run that began otherwise.

    Raises:
        ValueError: it did.
    """
    if not log.rows:
        return
    begun = log.rows[0]
    here = None if start_from is None else model_hash(resolve_model(start_from))
    if (begun.name == START) != (start_from is not None) or (here is not None and begun.model_hash != here):
        how = "from nothing" if begun.name != START else f"from {begun.model} (weights {begun.model_hash})"
        raise ValueError(f"{log.run_dir} was begun {how}; go on in the same way, or name another --run-dir")


@dataclass(frozen=True, kw_only=True)
class ChainCommand:
    """Run all stages of nano, going on where they were stopped."""

    run_dir: Path = Path("runs/chain")
    """A folder for each stage, and the table."""
    start_from: Path | None = None
    """A model folder in the place of tokenizers and SFT at 64 px."""
    minutes: float | None = None
    """Stop (and save) after this long; the schedules stay in steps."""
    n: int = 8
    """Storybook cases per category after every stage; 0 = none."""
    short: bool = False
    """A small part of the steps: two hours of one CPU core."""
    chain: Annotated[Chain, UNNAMED] = field(default_factory=nano_chain)

    def __post_init__(self) -> None:
        if self.n < 0 or (self.minutes is not None and self.minutes < 0):
            raise ValueError("--n and --minutes are at least 0")


def main(arguments: Sequence[str] | None = None) -> None:
    short = "--short" in (sys.argv if arguments is None else arguments)  # the values of options that are not given
    default = ChainCommand(chain=short_chain()) if short else None
    command = read_command(ChainCommand, PROG, arguments, default)
    with user_errors(PROG):
        check_start(StageLog(command.run_dir), command.start_from)
        if command.start_from is not None:
            resolve_model(command.start_from)
    try:
        done = run_chain(command.chain, command.run_dir, command.minutes, command.start_from, command.n)
    except KeyboardInterrupt:
        done = False
    table = command.run_dir / "stages.md"
    how = f"all stages are finished, the model is in {folder_of(command.run_dir, command.chain.edit.name) / 'model'}"
    logger.info("%s", how if done else "stopped before the end; the same command continues")
    if table.is_file():
        logger.info("what each stage changed: %s", table)


if __name__ == "__main__":
    main()
