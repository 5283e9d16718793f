"""Supervised fine-tuning of the whole assistant on conversations with pictures: one forward, a text and an image loss.

In: a recipe (`training/recipes/`), an image tokenizer, a stream of conversations. Out, in the run directory:
`metrics.jsonl`, `samples/` (drawn from fixed prompts), `state.pt` to continue from, and by `export` a model directory.

Shape legend: B rows, T tokens, I input pictures, N drawn pictures, L slots, d bits, h w the final grid.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.conversations import Batch, BatchSettings, Conversations, MakeMessages, loader
from training.loop import Finished, LoopSettings, pick_device, run
from training.quick_attention import use_matmul_attention
from vargpt.backbone.merge import Condition
from vargpt.backbone.vision import patchify
from vargpt.model import VARGPT
from vargpt.processing import VargptProcessor
from vargpt.tokenizers.bit_correction import BitFlip, draw_flips
from vargpt.types import ImageLayout

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SftSettings:
    """What is learnt and how. Rates are per drawn picture.

    `flip_strength` is the largest share of bits flipped per scale (bitwise self-correction). `null_rate`,
    `no_text_rate` and `no_image_rate` hide the whole prefix, its text, or its pictures (the guidance branches).
    `rebuilt_rate` is how often the ViT reads a drawn picture back as the tokenizer rebuilds it rather than as it was.
    `detail` is how much more the tokens of busy places count. `compiled` has torch.compile fuse every layer (a quarter
    less time per step on a CPU, two minutes more at the start); without a C++ compiler a CPU run goes on as it is.
    """

    loop: LoopSettings
    batches: BatchSettings
    flip_strength: float = 0.2
    null_rate: float = 0.1
    no_text_rate: float = 0.05
    no_image_rate: float = 0.05
    rebuilt_rate: float = 0.7
    detail: float = 10.0
    image_loss_weight: float = 2.0
    text_loss_weight: float = 1.0
    compiled: bool = False


def draw_conditions(count: int, settings: SftSettings, generator: torch.Generator) -> Tensor:
    """A `Condition` per drawn picture."""
    chance = torch.rand(count, generator=generator)
    bounds = torch.tensor([settings.null_rate, settings.no_text_rate, settings.no_image_rate]).cumsum(0)
    table = torch.tensor([Condition.NULL, Condition.IMAGE_ONLY, Condition.TEXT_ONLY, Condition.FULL])
    return table[torch.bucketize(chance, bounds, right=True)]


class PictureInputs:
    """Turns the picture bytes of a batch into what the model takes: bits, targets, latents, patches."""

    def __init__(self, model: VARGPT, layout: ImageLayout, settings: SftSettings) -> None:
        self.model, self.layout, self.settings = model, layout, settings

    @torch.no_grad()
    def __call__(self, batch: Batch, step: int) -> dict[str, Any]:
        """Keyword arguments of `VARGPT.forward`; random choices are keyed by the step."""
        generator = torch.Generator().manual_seed(self.settings.loop.seed * 1_000_003 + step)
        tokenizer = self.model.image_tokenizer
        drawn, uploaded = (batch[name].shape[0] for name in ("drawn_images", "uploaded_images"))
        inputs: dict[str, Any] = {}
        pixels = torch.cat([to_pixels(batch[name]) for name in ("drawn_images", "uploaded_images") if len(batch[name])])
        features = in_chunks(lambda part: tokenizer.features(part, self.layout), pixels)
        clean = tokenizer.tokens_of(features, self.layout)
        if drawn:
            strength = BitFlip(self.settings.flip_strength, generator)
            flips = draw_flips(self.layout, drawn, tokenizer.num_bits, strength, features.device)
            corrected = tokenizer.correct(features[:drawn], self.layout, flips)
            inputs["image_bits"], inputs["target_bits"] = corrected.inputs.flat(), corrected.targets.flat()
            inputs["conditions"] = draw_conditions(drawn, self.settings, generator).to(pixels.device)
            inputs["token_weights"] = detail_weights(pixels[:drawn], self.layout, self.settings.detail)
            inputs["image_size"] = (self.layout.height, self.layout.width)
        seen = batch["input_drawn"]
        if len(seen):
            index = torch.where(seen >= 0, seen, drawn + (seen < 0).long().cumsum(0) - 1)
            latents = tokenizer.folded(features)[index]
            visible = pixels[index]
            rebuilt = (seen >= 0) & (
                torch.rand(len(seen), generator=generator).to(seen.device) < self.settings.rebuilt_rate
            )
            if bool(rebuilt.any()):
                visible = visible.clone()
                decoded = in_chunks(lambda chosen: tokenizer.decode(clean.select(chosen)), index[rebuilt])
                visible[rebuilt] = decoded.to(visible.dtype)
                latents = latents.clone()
                latents[rebuilt] = in_chunks(lambda part: tokenizer.unrounded(part, self.layout), visible[rebuilt])
            inputs["image_latents"] = latents
            patches, grid = patchify(visible, self.model.config.vision_config)
            inputs["pixel_values"], inputs["image_grid_thw"] = patches, grid
        return inputs


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 8) -> Tensor:
    """`function` of so many rows at a time, the last ones filled up: convolutions are prepared for one size only."""
    filled = torch.cat((rows, rows[-1:].expand(-len(rows) % size, *rows.shape[1:])))
    return torch.cat([function(part) for part in filled.split(size)])[: len(rows)]


def detail_weights(pixels: Tensor, layout: ImageLayout, strength: float) -> Tensor:
    """How much each token counts, "N L", mean one per scale and picture: 1 + strength * squared contrast in its area.

    Most of a page is background, whose bits are either easy or noise; what is asked for stands in the busy places.
    """
    grey = pixels.mean(1, keepdim=True)
    contrast = (F.max_pool2d(grey, 5, 1, 2) + F.max_pool2d(-grey, 5, 1, 2)) / 2  # 0 to 1
    scales = [1 + strength * F.adaptive_avg_pool2d(contrast.square(), scale).flatten(1) for scale in layout.scales]
    return torch.cat([weights / weights.mean(1, keepdim=True) for weights in scales], dim=1)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 "N 3 H W" to [-1, 1]."""
    return images.float().div(127.5).sub(1)


def make_compute_loss(
    model: VARGPT, layout: ImageLayout, settings: SftSettings
) -> Callable[[nn.Module, Batch, int], tuple[Tensor, dict[str, Any]]]:
    """The loss of one batch, for `training.loop.run`."""
    picture_inputs = PictureInputs(model, layout, settings)

    def compute_loss(_: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Any]]:
        has_pictures = len(batch["drawn_images"]) + len(batch["uploaded_images"]) > 0
        inputs = picture_inputs(batch, step) if has_pictures else {}
        output = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"], **inputs
        )
        metrics: dict[str, Any] = {
            "text_loss": output.text_loss.detach(),
            "pictures": len(batch["drawn_images"]),
            "tokens": int(batch["attention_mask"].sum()),
        }
        if output.scale_losses is not None:
            full = inputs["conditions"] == Condition.FULL
            metrics["image_loss"] = output.image_loss.detach()
            by_scale = output.scale_losses.detach()[full].mean(0) if bool(full.any()) else torch.zeros(0)
            metrics |= {f"bit_loss_{k}": value for k, value in enumerate(by_scale)}
        return output.loss, metrics

    return compute_loss


def compile_layers(model: VARGPT, device: torch.device) -> None:
    """Compiles the layers that every token passes, in place. Names of weights stay; sizes may change."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
        logger.warning("no C++ compiler was found: layers are not compiled (Debian, Ubuntu: apt install g++)")
        return
    for layer in (*model.generator.blocks, *model.language_model.layers):
        layer.compile(dynamic=True)


def train(
    model: VARGPT,
    processor: VargptProcessor,
    make_messages: MakeMessages,
    settings: SftSettings,
    run_dir: Path,
    on_sample: Callable[[nn.Module, int], None] | None = None,
    make_texts: MakeMessages | None = None,
) -> Finished:
    """Trains everything but the image tokenizer, in place; continues from `run_dir/state.pt` if there is one.

    `make_texts` is the stream that `settings.batches.texts_per_pool` speaks of.
    """
    model.config.image_loss_weight = settings.image_loss_weight
    model.config.text_loss_weight = settings.text_loss_weight
    model.image_tokenizer.requires_grad_(False)
    device = pick_device(settings.loop.device)
    if device.type == "cpu":
        use_matmul_attention(model)
    if settings.compiled:
        compile_layers(model, device)
    layout = model.config.layout()

    def batches(start_step: int) -> Iterator[Batch]:
        stream = Conversations(
            make_messages, processor, layout.num_tokens, settings.batches, start_step, make_texts=make_texts
        )
        return loader(stream)

    (run_dir / "samples").mkdir(parents=True, exist_ok=True)
    return run(settings.loop, model, make_compute_loss(model, layout, settings), batches, run_dir, on_sample)
