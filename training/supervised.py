"""Supervised fine-tuning of the whole assistant on conversations with pictures: one forward, a text and an image loss.

In: a recipe (`training/recipes/`), an image tokenizer, a stream of conversations. Out, in the run directory:
`metrics.jsonl`, `samples/` (drawn from fixed prompts), `checkpoints/` to continue from, and by `export` a model
directory. The loop is the one of `loop.py`, in one process or in many.

Shape legend: B rows, T tokens, I input pictures, N drawn pictures, L slots, d bits, h w the final grid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.autocast import settled_autocast
from training.averaged_weights import AveragedWeights
from training.cpu.matmul_attention import use_matmul_attention
from training.data import PICTURES_OF_A_ROW, Batch, BatchSettings, Conversations, MakeMessages, Share, loader
from training.distributed import join, rank, sharded_copy, world_size
from training.loop import Finished, LoopSettings, Losses, OnSample, Sums, run
from vargpt.assistant.model import VARGPT
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.assistant.processor import VargptProcessor
from vargpt.assistant.sequence import Visibility
from vargpt.assistant.vision import patchify
from vargpt.loading.models import save
from vargpt.tokenizers.bit_correction import BitFlip, draw_flips
from vargpt.types import ImageLayout

logger = logging.getLogger(__name__)

VISIBLE = 0.1  # of a range of 2: by so much must a pixel differ to count as changed


@dataclass(frozen=True)
class Apart:
    """Pictures, few and shown often, that are learnt in another way than those of the stream that they are mixed into.

    Nothing of their conversation is ever hidden: what only they show stays out of the branches that know less, and
    guidance moves towards it. Up to `flip_strength` of their bits are flipped per scale, so that the finer scales are
    not learnt by heart from the coarser ones, which are never so right when the model draws by itself.

    `chosen` tells by its number whether a sample is one of these.
    """

    chosen: Callable[[int], bool]
    flip_strength: float

    def pictures(self, seeds: Sequence[int]) -> list[bool]:
        """Of every picture, by what keys its chance, whether it is one of these."""
        return [self.chosen(seed // PICTURES_OF_A_ROW) for seed in seeds]


@dataclass(frozen=True, kw_only=True)
class SftSettings:
    """What is learnt and how. Rates are per drawn picture.

    `flip_strength` is the largest share of bits flipped per scale (bitwise self-correction). `null_rate`,
    `no_text_rate` and `no_image_rate` hide the whole prefix, its text, or its pictures (the guidance branches).
    The pictures of some samples can be learnt `apart`.
    `rebuilt_rate` is how often the ViT reads a drawn picture back as the tokenizer rebuilds it rather than as it was.
    `detail` is how much more the tokens of busy places count, `change` those where an edit differs from its source
    (the others are repeated, and soon learnt). `compiled` has torch.compile fuse every layer (a quarter
    less time per step on a CPU, two minutes more at the start); without a C++ compiler a CPU run goes on as it is.

    `gradient_checkpointing` computes the inside of layers again in the backward pass instead of keeping it. `sharded`
    spreads the weights over the processes (FSDP2); the model that was handed in stays whole in every process, in main
    memory, to be sampled from and to hold the result.
    """

    loop: LoopSettings
    batches: BatchSettings
    flip_strength: float = 0.2
    null_rate: float = 0.1
    no_text_rate: float = 0.05
    no_image_rate: float = 0.05
    apart: Apart | None = None
    rebuilt_rate: float = 0.7
    detail: float = 10.0
    change: float = 0.0
    image_loss_weight: float = 2.0
    text_loss_weight: float = 1.0
    compiled: bool = False
    gradient_checkpointing: bool = False
    sharded: bool = False


def draw_conditions(count: int, settings: SftSettings, generator: torch.Generator) -> Tensor:
    """A `Visibility` per drawn picture."""
    chance = torch.rand(count, generator=generator)
    bounds = torch.tensor([settings.null_rate, settings.no_text_rate, settings.no_image_rate]).cumsum(0)
    table = torch.tensor([Visibility.NULL, Visibility.IMAGE_ONLY, Visibility.TEXT_ONLY, Visibility.FULL])
    return table[torch.bucketize(chance, bounds, right=True)]


class PictureInputs:
    """Turns the picture bytes of a batch into what the model takes: drawn pictures, latents, patches."""

    def __init__(self, model: VARGPT, layout: ImageLayout, settings: SftSettings) -> None:
        self.model, self.layout, self.settings = model, layout, settings

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments of `VARGPT.forward`; what is left to chance is keyed by the picture."""
        tokenizer = self.model.image_tokenizer
        drawn, uploaded = (batch[name].shape[0] for name in ("drawn_images", "uploaded_images"))
        inputs: dict[str, Any] = {}
        pixels = torch.cat([to_pixels(batch[name]) for name in ("drawn_images", "uploaded_images") if len(batch[name])])
        features = in_chunks(lambda part: tokenizer.features(part, self.layout), pixels)
        clean = tokenizer.tokens_of(features, self.layout)
        if drawn:
            seeds, apart = batch["drawn_seeds"].tolist(), self.settings.apart
            dice, chosen = [self.dice("drawn", seed) for seed in seeds], [False] * drawn
            if apart is not None:
                chosen = apart.pictures(seeds)
            flips = self.flips(dice, chosen, features.device)
            corrected = tokenizer.correct(features[:drawn], self.layout, flips)
            changes = self.changes(batch, pixels) if self.settings.change else None
            weights = token_weights(pixels[:drawn], self.layout, self.settings.detail, changes)
            inputs["pictures"] = PictureBatch(
                tokens=corrected.inputs,
                targets=corrected.targets,
                weights=weights * batch["drawn_learnt"][:, None],
                conditions=self.conditions(dice, chosen).to(pixels.device),
                count=batch["num_pictures"],
            )
        seen = batch["input_drawn"]
        if len(seen):
            index = picture_index(batch)
            latents = tokenizer.folded(features)[index]
            visible = pixels[index]
            chance = torch.cat(
                [torch.rand(1, generator=self.dice("seen", seed)) for seed in batch["input_seeds"].tolist()]
            )
            rebuilt = (seen >= 0) & (chance.to(seen.device) < self.settings.rebuilt_rate)
            if bool(rebuilt.any()):
                decoded = in_chunks(lambda chosen: tokenizer.decode(clean.select(chosen)), index[rebuilt])
                visible[rebuilt] = decoded.to(visible.dtype)
                latents[rebuilt] = in_chunks(lambda part: tokenizer.unrounded(part, self.layout), visible[rebuilt])
            inputs["image_latents"] = latents
            patches, grid = patchify(visible, self.model.config.vision_config)
            inputs["pixel_values"], inputs["image_grid_thw"] = patches, grid
        return inputs

    def conditions(self, dice: Sequence[torch.Generator], apart: Sequence[bool]) -> Tensor:
        """A `Visibility` per drawn picture."""
        drawn = torch.cat([draw_conditions(1, self.settings, one) for one in dice])
        return drawn.masked_fill(torch.tensor(apart), int(Visibility.FULL))

    def changes(self, batch: Batch, pixels: Tensor) -> Tensor:
        """How much more every pixel of a drawn picture counts for being another than in its source, "N 1 H W"."""
        drawn = pixels[: len(batch["drawn_images"])]
        num_slots = int((batch["input_ids"] == self.model.placeholders.slot).sum()) // len(drawn)
        source = self.model.drawn_places(batch["input_ids"], num_slots).source
        if not bool((source >= 0).any()):
            return torch.zeros_like(drawn[:, :1])
        before = pixels[picture_index(batch)[source.clamp(min=0)]]
        differs = ((drawn - before).abs().amax(1, keepdim=True) > VISIBLE) & (source >= 0)[:, None, None, None]
        return self.settings.change * differs.float()

    def dice(self, use: str, picture: int) -> torch.Generator:
        """A random stream of its own for every picture and use."""
        key = f"{self.settings.loop.seed}-{use}-{picture}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest()))

    def flips(self, dice: Sequence[torch.Generator], apart: Sequence[bool], device: torch.device) -> tuple[Tensor, ...]:
        """Which bits of every drawn picture are fed in wrong, scale by scale."""
        num_bits, settings = self.model.image_tokenizer.code_dim, self.settings
        each = []
        for one, alone in zip(dice, apart, strict=True):
            strength = settings.apart.flip_strength if settings.apart and alone else settings.flip_strength
            each.append(draw_flips(self.layout, 1, num_bits, BitFlip(strength, one), device))
        return tuple(torch.cat(masks) for masks in zip(*each, strict=True))


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 8) -> Tensor:
    """`function` of so many rows at a time, the last ones filled up: convolutions are prepared for one size only."""
    filled = torch.cat((rows, rows[-1:].expand(-len(rows) % size, *rows.shape[1:])))
    return torch.cat([function(part) for part in filled.split(size)])[: len(rows)]


def picture_index(batch: Batch) -> Tensor:
    """Which of the drawn and uploaded pictures (in this order) every input picture is, "I"."""
    seen, drawn = batch["input_drawn"], len(batch["drawn_images"])
    return torch.where(seen >= 0, seen, drawn + (seen < 0).long().cumsum(0) - 1)


def token_weights(pixels: Tensor, layout: ImageLayout, detail: float, changes: Tensor | None = None) -> Tensor:
    """How much each token counts, "N L", mean one per scale and picture.

    Most of a page is background, whose bits are either easy or noise; what is asked for stands in the busy places:
    1 + detail * squared contrast in the token's area. `changes` "N 1 H W" raises that by so many times as much.
    """
    grey = pixels.mean(1, keepdim=True)
    contrast = (F.max_pool2d(grey, 5, 1, 2) + F.max_pool2d(-grey, 5, 1, 2)) / 2  # 0 to 1
    weights = []
    for scale in layout.scales:
        weight = 1 + detail * F.adaptive_avg_pool2d(contrast.square(), scale)
        if changes is not None:
            weight = weight * (1 + F.adaptive_max_pool2d(changes, scale))
        weights.append(weight.flatten(1) / weight.flatten(1).mean(1, keepdim=True))
    return torch.cat(weights, dim=1)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 "N 3 H W" to [-1, 1]."""
    return images.float().div(127.5).sub(1)


def make_losses(model: VARGPT, layout: ImageLayout, settings: SftSettings) -> Losses:
    """What a micro-batch adds to the loss of its whole batch, and to the sums that `report` reads.

    `model` is the one whose image tokenizer makes the inputs; what is called may be a wrapper around it.
    """
    picture_inputs = PictureInputs(model, layout, settings)

    def losses(module: nn.Module, batch: Batch, step: int = 0) -> tuple[Tensor, Sums]:
        has_pictures = len(batch["drawn_images"]) + len(batch["uploaded_images"]) > 0
        inputs = picture_inputs(batch) if has_pictures else {}
        output = module(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
            num_text_tokens=batch["num_text_tokens"],
            **inputs,
        )
        zero = output.loss.new_zeros(())
        sums = {
            "text_loss": output.text_loss.detach(),
            "image_loss": zero,
            "pictures": batch["drawn_learnt"].sum(),
            "tokens": batch["attention_mask"][batch["learnt_rows"]].sum(),
            "samples": batch["learnt_rows"].sum(),
            "full_pictures": zero,
        }
        by_scale = output.loss.new_zeros(layout.num_scales)
        if output.scale_losses is not None:
            full = (inputs["pictures"].conditions == Visibility.FULL) & batch["drawn_learnt"]
            sums |= {"image_loss": output.image_loss.detach(), "full_pictures": full.sum()}
            by_scale = output.scale_losses.detach()[full].sum(0)
        return output.loss, sums | {f"bit_loss_{k}": value for k, value in enumerate(by_scale)}

    return losses


def report(sums: Sums) -> dict[str, float]:
    """The metrics of a batch: means, and how much there was of it."""
    metrics = {name: float(sums[name]) for name in ("text_loss", "pictures", "tokens", "samples")}
    if metrics["pictures"]:
        metrics["image_loss"] = float(sums["image_loss"])
    full = float(sums["full_pictures"])
    if full:
        metrics |= {name: float(value) / full for name, value in sums.items() if name.startswith("bit_loss_")}
    return metrics


def compile_layers(model: VARGPT, device: torch.device) -> None:
    """Compiles the layers that every token passes, in place. Names of weights stay; sizes may change."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
        logger.warning("no C++ compiler was found: layers are not compiled (Debian, Ubuntu: apt install g++)")
        return
    for layer in (*model.generator.blocks, *model.language_model.layers):
        layer.compile(dynamic=True)


def make_learner(model: VARGPT, settings: SftSettings, device: torch.device) -> VARGPT:
    """The model that learns, on its device: the given one, or a sharded copy of it."""
    if settings.gradient_checkpointing:
        switch_checkpointing(model, "enable")
    if settings.sharded and world_size() > 1:
        learner = sharded_copy(model, device, settings.loop.autocast == "bf16")
    else:
        if settings.sharded:
            logger.warning("sharded=True does nothing in a single process; start several with torchrun")
        learner = model.to(device)
    if settings.compiled:
        compile_layers(learner, device)
    return learner.train()


def switch_checkpointing(model: VARGPT, to: Literal["enable", "disable"]) -> None:
    """Whether layers compute their inside again in the backward pass; transformers has renamed this on its way."""
    new, old = f"activation_checkpointing_{to}", f"gradient_checkpointing_{to}"
    getattr(model, new if hasattr(model, new) else old)()


@contextlib.contextmanager
def checkpointing_undone(model: VARGPT) -> Iterator[None]:
    """Gives the model back without the activation checkpointing that a run switches on."""
    was_on = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    try:
        yield
    finally:
        if not was_on:
            switch_checkpointing(model, "disable")


def train(
    model: VARGPT,
    processor: VargptProcessor,
    make_messages: MakeMessages,
    settings: SftSettings,
    run_dir: Path,
    on_sample: OnSample | None = None,
    make_texts: MakeMessages | None = None,
) -> Finished:
    """Trains everything but the image tokenizer, in place; continues from the last checkpoint in `run_dir` if any.

    A call that has any time makes at least one step. Started by torchrun, the processes share every batch; only the
    first one writes and samples.

    Args:
        model: its parameters with requires_grad learn, all but those of the image tokenizer.
        processor: turns conversations into ids.
        make_messages: the conversation of every sample number.
        settings: see `SftSettings`.
        run_dir: where metrics, samples and checkpoints go; a folder that all processes see.
        on_sample: called with the averaged model in eval mode every `sample_every` steps and at the end.
        make_texts: the stream that `settings.batches.texts_per_pool` speaks of.

    Raises:
        ImportError: a tensorboard that was asked for is not installed.
        ValueError: the folder holds a run of another kind.
        FloatingPointError: too many losses in a row were not finite.
    """
    device = join(settings.loop.device)
    autocast = settled_autocast(settings.loop.autocast, device, model)
    settings = dataclasses.replace(settings, loop=dataclasses.replace(settings.loop, autocast=autocast))
    model.config.image_loss_weight = settings.image_loss_weight
    model.config.text_loss_weight = settings.text_loss_weight
    model.image_tokenizer.requires_grad_(False)
    if device.type == "cpu":
        use_matmul_attention(model)
    (run_dir / "samples").mkdir(parents=True, exist_ok=True)
    layout, share = model.config.layout(), Share(rank(), world_size(), settings.loop.accumulation)

    def batches(step: int) -> Iterator[Batch]:
        stream = Conversations(make_messages, processor, layout.num_tokens, settings.batches, step, make_texts, share)
        return iter(loader(stream))

    with checkpointing_undone(model):
        learner = make_learner(model, settings, device)
        losses = make_losses(learner, layout, settings)
        return run(settings.loop, learner, losses, batches, run_dir, report, on_sample, whole_model=model)


def export(model: VARGPT, processor: VargptProcessor, ema: AveragedWeights | None, path: Path) -> None:
    """The averaged weights in bfloat16 as a model directory; a model card that is there already is kept."""
    if ema is not None:
        with ema.applied_to(model):
            save(model.eval(), processor, path)
    else:
        save(model.eval(), processor, path)
