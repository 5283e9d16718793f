"""Trains an image tokenizer on pages of the storybook, and exports it.

In: a named recipe (`training/recipes/`). Out, in the run directory: `metrics.jsonl`, `evaluation.jsonl` (PSNR and use
of the bits), `samples/` (originals above reconstructions above previews), `checkpoints/` and `tokenizer.safetensors`,
the averaged weights with their configuration in the metadata.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from data_recipes.storybook.drawing.render import paint, render
from data_recipes.storybook.drawing.styles import apply_style
from data_recipes.storybook.world.random_scenes import sample_colour, sample_scene
from data_recipes.storybook.world.scene import PLACES, SIZES, Group, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS
from training.distributed import join, rank, world_size
from training.loop import Finished, LoopSettings, Sums, run
from training.tokenizer.bsq_losses import BsqWeights, reconstruct
from training.tokenizer.reconstruction import ReconstructionLoss, ReconstructionWeights, psnr
from vargpt.config import BsqTokenizerConfig
from vargpt.tokenizers.bsq import BsqTokenizer
from vargpt.types import ImageLayout, ImageTokens

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8

logger = logging.getLogger(__name__)

DrawPage = Callable[[str, int, int], Image.Image]  # (sample id, height, width) -> RGB picture
NUM_EVALUATED = 64
CROWDED_RATE = 0.6
NUM_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class TokenizerNetwork:
    """The fields of `BsqTokenizerConfig` that a recipe states in full."""

    num_bits: int = 16
    base_channels: int = 32
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 1
    patch_size: int = 1

    def config(self) -> BsqTokenizerConfig:
        return BsqTokenizerConfig(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """A tokenizer run. `prefix_rate` is the share of pictures decoded from a random prefix of the scales."""

    height: int
    width: int
    scales: tuple[tuple[int, int], ...]
    network: TokenizerNetwork
    weights: ReconstructionWeights
    loop: LoopSettings
    bits: BsqWeights = BsqWeights()
    batch_size: int = 64
    prefix_rate: float = 0.15
    num_workers: int = 1

    @property
    def layout(self) -> ImageLayout:
        return ImageLayout(self.height, self.width, self.scales)


def storybook_page(sample_id: str, height: int, width: int) -> Image.Image:
    """A random page; equal ids give equal pages. Square pages are drawn at size, others are cut from the middle.

    More than half of the training pages are crowded: a tokenizer learns things, and most of a usual page is background.
    """
    side = -(-max(height, width) // 32) * 32
    rng = random.Random(f"tokenizer/{sample_id}")
    crowded = sample_id.startswith("train") and rng.random() < CROWDED_RATE
    page = crowded_page(rng, side) if crowded else render(sample_scene(rng), side)
    left, top = (side - width) // 2, (side - height) // 2
    return page.crop((left, top, left + width, top + height))


def crowded_page(rng: random.Random, side: int) -> Image.Image:
    """Things at random places, each at a place where scenes have them, though together no scene would."""
    places = rng.sample(PLACES, rng.choice((4, 5, 6, 7, 8, 9)))
    kinds = [rng.choice(tuple(OBJECTS)) for _ in places]
    groups = tuple(
        Group(kind, 1, sample_colour(rng, kind), rng.choices(SIZES, (0.5, 0.35, 0.15))[0], place)
        for kind, place in zip(kinds, places, strict=True)
    )
    like = sample_scene(rng)
    scene = Scene(groups, like.background, like.style)
    return Image.fromarray(apply_style(scene.style, paint(scene, side)))


class Pages(Dataset):
    """Pages by number, with their number, as uint8 "3 H W"."""

    def __init__(self, draw_page: DrawPage, height: int, width: int, prefix: str) -> None:
        self.draw_page, self.height, self.width, self.prefix = draw_page, height, width, prefix

    def __getitem__(self, index: int) -> tuple[int, UInt8[Tensor, "3 H W"]]:
        page = self.draw_page(f"{self.prefix}/{index}", self.height, self.width)
        return index, torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()


def to_pixel_values(pictures: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    """Bytes 0 .. 255 to [-1, 1]."""
    return pictures.float() / 127.5 - 1


class TokenizerTrainer(nn.Module):
    """The tokenizer together with its losses: what the loop trains."""

    def __init__(self, settings: TokenizerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.tokenizer = BsqTokenizer(settings.network.config())
        self.reconstruction_loss = ReconstructionLoss(settings.weights)

    def forward(
        self, pixel_values: Float[Tensor, "N 3 H W"], places: Int[Tensor, " N"], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(share of the batch's loss, sums for `report`) of the pictures at these places of the batch of a step.

        Losses are means over pictures, so shares add up; but for the entropy of the bits used and the weights of
        detail, which are taken over the pictures of a micro-batch.
        """
        share = len(pixel_values) / self.settings.batch_size
        stop_after = self.draw_stops(self.settings.batch_size, step).to(pixel_values.device)[places]
        rebuilt = reconstruct(self.tokenizer, pixel_values, self.settings.layout, self.settings.bits, stop_after)
        loss, metrics = self.reconstruction_loss(rebuilt.pixel_values, pixel_values, step)
        whole = stop_after == self.settings.layout.num_scales
        metrics |= {
            "commitment": rebuilt.commitment.detach(),
            "decided_entropy": rebuilt.decided_entropy.detach(),
            "used_entropy": rebuilt.used_entropy.detach(),
        }
        sums = {name: value * share for name, value in metrics.items()}
        sums |= {
            "psnr": psnr(rebuilt.pixel_values.detach().float()[whole], pixel_values[whole]).sum(),
            "whole_pictures": whole.sum(),
            "samples": whole.new_tensor(len(whole), dtype=torch.float32),
        }
        return (loss + rebuilt.loss) * share, sums

    def draw_stops(self, num_images: int, step: int) -> Tensor:
        """How many scales the decoder sees of each picture: mostly all, now and then a prefix. The first sees all."""
        generator = torch.Generator().manual_seed(self.settings.loop.seed * 1_000_003 + step)
        num_scales = self.settings.layout.num_scales
        stops = torch.randint(1, max(num_scales, 2), (num_images,), generator=generator)
        whole = torch.rand(num_images, generator=generator) >= self.settings.prefix_rate
        whole[0] = True
        return torch.where(whole, num_scales, stops)


def report(sums: Sums) -> dict[str, float]:
    """The metrics of a batch; the PSNR is the mean of the pictures that the decoder saw all scales of, in dB."""
    metrics = {name: float(value) for name, value in sums.items()}
    metrics["psnr"] /= metrics.pop("whole_pictures")
    return metrics


@torch.no_grad()
def evaluate(
    tokenizer: BsqTokenizer, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout
) -> tuple[dict[str, Any], Image.Image]:
    """PSNR after every scale and how often each bit is 1; and a picture: originals, reconstructions, previews."""
    tokens: ImageTokens = tokenizer.encode(pixel_values, layout)
    rows = [pixel_values[:NUM_SHOWN]]
    previews = [tokenizer.decode(tokens.prefix(k + 1)).float() for k in range(layout.num_scales)]
    rows += [preview[:NUM_SHOWN] for preview in reversed(previews)]
    usage = [grid.float().mean(dim=(0, 1, 2)) for grid in tokens.grids]
    numbers = {
        "psnr": float(psnr(previews[-1], pixel_values).mean()),
        "psnr_by_scale": [round(float(psnr(preview, pixel_values).mean()), 2) for preview in previews],
        "worst_psnr": float(psnr(previews[-1], pixel_values).min()),
        "bit_means": [[round(float(mean), 3) for mean in means] for means in usage],
        "bits_per_bit": round(float(bit_entropies(torch.stack(usage[1:] or usage)).mean()), 4),
    }
    return numbers, as_sheet(torch.stack(rows))


def bit_entropies(means: Tensor) -> Tensor:
    """In bits: 1 where a bit is 1 half of the time, 0 where it never changes."""
    p = means.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def as_sheet(rows: Float[Tensor, "R N 3 H W"], zoom: int = 2) -> Image.Image:
    """Rows of pictures in [-1, 1] on one sheet."""
    sheet = rearrange(rows, "R N C H W -> (R H) (N W) C")
    image = Image.fromarray(((sheet.cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def save_tokenizer(tokenizer: BsqTokenizer, path: Path) -> None:
    """Weights and, in the metadata, the configuration. Inverse: `load_tokenizer`."""
    weights = {name: value.detach().cpu().contiguous() for name, value in tokenizer.state_dict().items()}
    save_file(weights, path, metadata={"config": json.dumps(tokenizer.config.to_dict())})


def load_tokenizer(path: Path) -> BsqTokenizer:
    """The tokenizer in eval mode. Raises FileNotFoundError when there is none."""
    with safe_open(path, framework="pt") as file:
        config = BsqTokenizerConfig.from_dict(json.loads(file.metadata()["config"]))
    tokenizer = BsqTokenizer(config)
    tokenizer.load_state_dict(load_file(path))
    return tokenizer.eval()


def train(settings: TokenizerSettings, run_dir: Path, draw_page: DrawPage = storybook_page) -> Finished:
    """Runs (or continues) a recipe; see the module docstring for what it leaves in `run_dir`."""
    pages = Pages(draw_page, settings.height, settings.width, f"train/{settings.loop.seed}")
    held_out = Pages(draw_page, settings.height, settings.width, "evaluation")
    evaluated = to_pixel_values(torch.stack([held_out[index][1] for index in range(NUM_EVALUATED)]))
    device, count = join(settings.loop.device), world_size() * settings.loop.accumulation
    if settings.batch_size < count:
        raise ValueError(f"a batch of {settings.batch_size} pictures cannot be cut into {count} micro-batches")
    (run_dir / "samples").mkdir(parents=True, exist_ok=True)

    def batches(start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        micro_batches = (
            range(step * settings.batch_size, (step + 1) * settings.batch_size)[part * world_size() + rank() :: count]
            for step in range(start_step, settings.loop.total_steps)
            for part in range(settings.loop.accumulation)
        )
        return iter(DataLoader(pages, batch_sampler=micro_batches, num_workers=settings.num_workers))

    def losses(model: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, Sums]:
        numbers, pictures = batch
        return model(to_pixel_values(pictures), numbers - step * settings.batch_size, step)

    def on_sample(model: nn.Module, step: int) -> None:
        assert isinstance(model, TokenizerTrainer)
        numbers, sheet = evaluate(model.tokenizer, evaluated.to(device), settings.layout)
        logger.info("step %d: PSNR %.2f dB, by scale %s", step, numbers["psnr"], numbers["psnr_by_scale"])
        sheet.save(run_dir / "samples" / f"step_{step:06d}.png")
        with (run_dir / "evaluation.jsonl").open("a") as file:
            file.write(json.dumps({"step": step} | numbers) + "\n")
        save_tokenizer(model.tokenizer, run_dir / "tokenizer.safetensors")

    torch.manual_seed(settings.loop.seed)
    return run(settings.loop, TokenizerTrainer(settings), losses, batches, run_dir, report, on_sample)
