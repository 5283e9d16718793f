"""What a tokenizer learns from: how far a reconstruction is from the picture, by several measures made here.

No published network is needed: edges and details are weighed by arithmetic, perception by a fixed random network whose
features still tell textures apart, realism by a small patch discriminator (arXiv 1611.07004) with hinge losses.

Shape legend: N images, H W pixels. Pictures are float in about [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ReconstructionWeights:
    """How much each measure counts; 0 switches one off and costs nothing.

    `detail` raises the weight of busy places: a pixel counts 1 + detail * (contrast around it in [0, 1]), scaled back
    to a mean of one. `adversarial` starts at step `adversarial_start` and is balanced against the rest by their
    gradients.
    """

    absolute: float = 1.0
    squared: float = 1.0
    edge: float = 0.5
    detail: float = 2.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    adversarial_start: int = 0


def detail_weights(pixel_values: Float[Tensor, "N 3 H W"], strength: float) -> Float[Tensor, "N 1 H W"]:
    """Per pixel, mean one: larger where light and dark are close together (in a 5x5 window)."""
    grey_N1HW = pixel_values.mean(1, keepdim=True)
    contrast_N1HW = (F.max_pool2d(grey_N1HW, 5, 1, 2) + F.max_pool2d(-grey_N1HW, 5, 1, 2)) / 2
    weights_N1HW = 1 + strength * contrast_N1HW
    return weights_N1HW / weights_N1HW.mean()


def edges(pixel_values: Float[Tensor, "N 3 H W"]) -> tuple[Float[Tensor, "N 3 H w"], Float[Tensor, "N 3 h W"]]:
    """Differences to the right and to the lower neighbour."""
    return pixel_values.diff(dim=-1), pixel_values.diff(dim=-2)


def edge_loss(output: Float[Tensor, "N 3 H W"], target: Float[Tensor, "N 3 H W"]) -> Float[Tensor, ""]:
    """Mean absolute difference of the edges."""
    pairs = zip(edges(output), edges(target), strict=True)
    return torch.stack([F.l1_loss(ours, theirs) for ours, theirs in pairs]).mean()


def psnr(output: Float[Tensor, "N 3 H W"], target: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
    """Peak signal-to-noise ratio in decibel per picture, for pictures in [-1, 1]."""
    error_N = (output.clamp(-1, 1) - target).float().square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error_N.clamp(min=1e-10))


class RandomFeatures(nn.Module):
    """A frozen random convolutional network, the same on every machine; distances between its features are the loss."""

    def __init__(self, widths: tuple[int, ...] = (24, 48), seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        before = 3
        self.convs = nn.ModuleList()
        for width in widths:
            conv = nn.Conv2d(before, width, 5, stride=2, padding=2, bias=False)
            nn.init.orthogonal_(conv.weight, generator=generator)
            self.convs.append(conv)
            before = width
        self.requires_grad_(False)

    def forward(self, output: Float[Tensor, "N 3 H W"], target: Float[Tensor, "N 3 H W"]) -> Float[Tensor, ""]:
        losses = []
        both = torch.cat([output, target])
        for conv in self.convs:
            both = F.relu(conv(both))
            ours, theirs = both.float().chunk(2)
            losses.append(F.l1_loss(ours, theirs) / theirs.detach().abs().mean().clamp(min=1e-3))
        return torch.stack(losses).mean()


class PatchDiscriminator(nn.Module):
    """Says of every patch how real it looks (positive = real)."""

    def __init__(self, width: int = 32, num_levels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(num_levels - 1):
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.GroupNorm(8, 2 * width)]
            layers += [nn.LeakyReLU(0.2)]
            width *= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, pixel_values: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1 h w"]:
        return self.layers(pixel_values)


class ReconstructionLoss(nn.Module):
    """The weighted sum of all measures. Its discriminator trains with the same optimiser as the tokenizer.

    One backward pass serves both: the tokenizer sees the discriminator with detached weights, the discriminator sees
    detached pictures.
    """

    def __init__(self, weights: ReconstructionWeights) -> None:
        super().__init__()
        self.weights = weights
        self.features = RandomFeatures() if weights.perceptual else None
        self.discriminator = PatchDiscriminator() if weights.adversarial else None

    def forward(
        self, output: Float[Tensor, "N 3 H W"], target: Float[Tensor, "N 3 H W"], step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """(loss, its unweighted parts)."""
        weights = self.weights
        output, target = output.float(), target.float()
        per_pixel = detail_weights(target, weights.detail) if weights.detail else 1.0
        error = output - target
        parts = {
            "absolute": (per_pixel * error.abs()).mean(),
            "squared": (per_pixel * error.square()).mean(),
            "edge": edge_loss(output, target),
        }
        if self.features is not None:
            parts["perceptual"] = self.features(output, target)
        loss = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        if self.discriminator is not None and step >= weights.adversarial_start:
            fooling, judging, balance = self.adversarial(output, target, loss)
            loss = loss + weights.adversarial * balance * fooling + judging
            parts |= {"fooling": fooling, "judging": judging}
        return loss, {name: part.detach() for name, part in parts.items()}

    def adversarial(
        self, output: Float[Tensor, "N 3 H W"], target: Float[Tensor, "N 3 H W"], loss: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """(how badly the tokenizer fools, how badly the discriminator judges, what makes the first as loud as `loss`).

        The balance compares gradients at the picture (VQGAN compares them at the last layer, which costs a pass more).
        """
        assert self.discriminator is not None
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        fooling = -torch.func.functional_call(self.discriminator, frozen, (output,)).float().mean()
        real = self.discriminator(target).float()
        fake = self.discriminator(output.detach()).float()
        judging = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        if not output.requires_grad:
            return fooling, judging, torch.ones(())
        (ours,) = torch.autograd.grad(loss, output, retain_graph=True)
        (theirs,) = torch.autograd.grad(fooling, output, retain_graph=True)
        balance = (ours.norm() / theirs.norm().clamp(min=1e-8)).clamp(max=100.0).detach()
        return fooling, judging, balance
