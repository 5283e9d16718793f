"""How good a picture is for what was asked, as plain functions: `reward(prompts, images, **columns) -> list[float]`.

Every reward takes one prompt per picture and, by name, further columns with one value per picture (the storybook judge
needs `case`); it ignores columns that it has no use for. Higher is better; only comparisons between pictures of one
prompt matter, so that units differ. Published networks are read from a local folder or a hub id, when they are needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from data_recipes.storybook.judging.cases import DrawCase
from data_recipes.storybook.judging.judge import Judge
from data_recipes.storybook.judging.scoring import PictureReader, credit

Reward = Callable[..., list[float]]
KINDS = "storybook, clip:MODEL or aesthetic:MODEL:HEAD"


def reward_named(name: str) -> Reward:
    """The reward of a command line: "storybook", "clip:MODEL", "aesthetic:MODEL:HEAD".

    Raises:
        ValueError: there is no such reward.
    """
    kind, _, rest = name.partition(":")
    if name == "storybook":
        return storybook_reward()
    if kind == "clip" and rest:
        return clip_reward(rest)
    model, _, head = rest.rpartition(":")
    if kind == "aesthetic" and model and head:
        return aesthetic_reward(model, Path(head))
    raise ValueError(f"there is no reward {name!r}; there are {KINDS}")


def storybook_reward(judge: PictureReader | None = None) -> Reward:
    """The share of what was said that the judge finds on the page, 1 only if all of it and nothing else is there.

    Its column `case` holds what was asked; the prompts are only the words for it.
    """
    judge = judge or Judge()
    side = judge.resolution

    def storybook(
        prompts: Sequence[str], images: Sequence[Image.Image], case: Sequence[DrawCase], **_: Any
    ) -> list[float]:
        pages = [image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS) for image in images]
        return [credit(reading, one.prompt) for reading, one in zip(judge.detect(pages), case, strict=True)]

    return storybook


def clip_reward(model: str | Path, device: str = "cpu") -> Reward:
    """100 times the cosine between text and picture, by a CLIP (arXiv 2103.00020) in transformers' format.

    With the weights of HPSv2 (arXiv 2306.09341; a CLIP ViT-H/14 tuned on human choices) this is its score, with those
    of CLIP ViT-H/14 the reward of SimpleAR (arXiv 2504.11455).
    """
    encoder = ClipEncoder(model, device)

    def clip(prompts: Sequence[str], images: Sequence[Image.Image], **_: Any) -> list[float]:
        return (100 * (encoder.texts(prompts) * encoder.pictures(images)).sum(-1)).tolist()

    return clip


def aesthetic_reward(model: str | Path, head: Path, device: str = "cpu") -> Reward:
    """How people would rate a picture from 1 to 10, whatever was asked: a linear head on the features of a CLIP.

    Args:
        model: a CLIP in transformers' format (ViT-L/14 for the LAION heads).
        head: linear layers to be applied one after another, "*.weight" and "*.bias", as .safetensors or .pth; LAION's
            predictors are of this form, the improved one with five layers and no activations between them.
        device: where to compute.

    Raises:
        FileNotFoundError: there is no such head.
        ValueError: the file does not hold one.
    """
    encoder, layers = ClipEncoder(model, device), linear_layers(head)

    def aesthetic(prompts: Sequence[str], images: Sequence[Image.Image], **_: Any) -> list[float]:
        values = encoder.pictures(images)
        for weight, bias in layers:
            values = F.linear(values, weight.to(values), bias.to(values))
        return values[:, 0].tolist()

    return aesthetic


class ClipEncoder:
    """Texts and pictures to unit vectors of one space, "N D". Weights are read at the first use.

    Pictures are prepared by the Pillow image processor, which needs no torchvision.
    """

    def __init__(self, model: str | Path, device: str = "cpu") -> None:
        self.name, self.device = str(model), device
        self._parts: tuple[Any, Any, Any] | None = None

    def _loaded(self) -> tuple[Any, Any, Any]:
        if self._parts is None:
            from transformers import AutoTokenizer, CLIPModel
            from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

            model = CLIPModel.from_pretrained(self.name).to(self.device).eval().requires_grad_(False)
            tokenizer = AutoTokenizer.from_pretrained(self.name)
            self._parts = model, tokenizer, CLIPImageProcessorPil.from_pretrained(self.name)
        return self._parts

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        model, tokenizer, _ = self._loaded()
        longest = model.config.text_config.max_position_embeddings
        batch = tokenizer(
            list(texts), padding=True, padding_side="right", truncation=True, max_length=longest, return_tensors="pt"
        )
        hidden = model.text_model(
            input_ids=batch["input_ids"].to(self.device), attention_mask=batch["attention_mask"].to(self.device)
        )
        return F.normalize(model.text_projection(hidden.pooler_output).float(), dim=-1)

    @torch.no_grad()
    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        model, _, processor = self._loaded()
        pixels = processor(images=[image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        hidden = model.vision_model(pixel_values=pixels.to(self.device, model.dtype))
        return F.normalize(model.visual_projection(hidden.pooler_output).float(), dim=-1)


def linear_layers(path: Path) -> list[tuple[Tensor, Tensor]]:
    """The (weight, bias) pairs of a file, in the order of the numbers in their names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not end in a single number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no aesthetic head {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    stems = {name.removesuffix("weight") for name in tensors if name.endswith("weight")}
    ordered = sorted(stems, key=lambda stem: [int(number) for number in re.findall(r"\d+", stem)])
    layers = [(tensors[f"{stem}weight"], tensors[f"{stem}bias"]) for stem in ordered]
    if not layers or layers[-1][0].shape[0] != 1:
        raise ValueError(f"{path} holds no linear layers that end in one rating per picture")
    return layers
