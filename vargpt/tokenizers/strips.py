"""Convolutions for decoding without gradients: the same numbers up to rounding, with less work and less memory.

Two identities. A convolution after doubling rows and columns by repetition sees every cell several times, so its 3x3
weights can be added up to four 2x2 kernels on the small grid: 4/9 of the multiplications, and the doubled input is
never made. And normalisation in groups needs the whole picture only for two numbers per group; with those, a layer can
go strip by strip (norm, swish, convolution while the strip is in the cache), with the rows above and below that the
kernel looks at. So the strips join without a seam, and what large pictures need beside input and output is one strip.

Differences from the plain order of operations are those of float32 rounding: below 1e-4 for pictures in [-1, 1], as
between memory layouts.

Shape legend: N images, C D channels, H W rows and columns, g groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# The C library keeps freed blocks of up to 32 MiB; larger ones come fresh from the system page by page, every time,
# which takes longer than the arithmetic of a normalisation.
LARGE_BYTES = 32 * 2**20
STRIP_BYTES = 4 * 2**20


def is_large(hidden_NCHW: Float[Tensor, "N C H W"]) -> bool:
    """Whether a layer should go by strips: when decoding on a CPU, where new large tensors cost more than sums."""
    size = hidden_NCHW.numel() * hidden_NCHW.element_size()
    return not torch.is_grad_enabled() and hidden_NCHW.device.type == "cpu" and size >= LARGE_BYTES


def affine_norm(hidden_NCHW: Float[Tensor, "N C H W"], norm: nn.GroupNorm, rows: int) -> tuple[Tensor, Tensor]:
    """Scale and shift per image and channel ("N C 1 1" each, float32) that normalise in groups; `rows` at a time."""
    num_images, channels, height, width = hidden_NCHW.shape
    hidden_NHWC = hidden_NCHW.permute(0, 2, 3, 1)
    per_group, count = channels // norm.num_groups, channels // norm.num_groups * height * width

    def in_groups(sums_NC: Tensor) -> Tensor:
        return (sums_NC.unflatten(1, (norm.num_groups, -1)).sum(2) / count).repeat_interleave(per_group, dim=1)

    sums_NC = sum(part.flatten(1, 2).sum(1, dtype=torch.float32) for part in hidden_NHWC.split(rows, dim=1))
    mean_NC = in_groups(torch.as_tensor(sums_NC))
    squares_NC = sum(
        (part.flatten(1, 2) - mean_NC[:, None]).square_().sum(1) for part in hidden_NHWC.split(rows, dim=1)
    )
    scale_NC = (in_groups(torch.as_tensor(squares_NC)) + norm.eps).rsqrt() * norm.weight.float()
    shift_NC = norm.bias.float() - mean_NC * scale_NC
    return scale_NC[..., None, None], shift_NC[..., None, None]


def swish_conv(
    hidden_NCHW: Float[Tensor, "N C H W"],
    norm: nn.Module,
    conv: nn.Conv2d,
    beside_NDHW: Float[Tensor, "N D H W"] | None = None,
) -> Float[Tensor, "N D H W"]:
    """`conv(silu(norm(hidden))) + beside`, strip by strip. The kernel is odd and keeps the size."""
    num_images, channels, height, width = hidden_NCHW.shape
    halo = conv.kernel_size[0] // 2
    rows = min(height, max(1, STRIP_BYTES // (num_images * channels * width * hidden_NCHW.element_size())))
    scale = shift = None
    if isinstance(norm, nn.GroupNorm):
        scale, shift = affine_norm(hidden_NCHW, norm, rows)
    shape = (num_images, conv.out_channels, height, width)
    out_NDHW = torch.empty(shape, dtype=hidden_NCHW.dtype, memory_format=torch.channels_last)
    padded_NHWC = hidden_NCHW.new_zeros((num_images, rows + 2 * halo, width, channels))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(top - halo, 0), min(bottom + halo, height)
        strip = hidden_NCHW[:, :, first:last]
        whole_NhwC = padded_NHWC[:, : bottom - top + 2 * halo]
        seen_NChw = whole_NhwC[:, first - top + halo : last - top + halo].permute(0, 3, 1, 2)
        if scale is None or shift is None:
            seen_NChw.copy_(F.silu(norm(strip)))
        elif strip.dtype == torch.float32:
            F.silu(torch.addcmul(shift, strip, scale, out=seen_NChw), inplace=True)
        else:
            seen_NChw.copy_(F.silu(torch.addcmul(shift, strip, scale), inplace=True))
        if last < bottom + halo:  # below the picture, where an earlier strip stood
            whole_NhwC[:, last - top + halo :].zero_()
        part = out_NDHW[:, :, top:bottom]
        part.copy_(F.conv2d(whole_NhwC.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=(0, halo)))
        if beside_NDHW is not None:
            part.add_(beside_NDHW[:, :, top:bottom])
    return out_NDHW


def doubled_conv(hidden_NChw: Float[Tensor, "N C h w"], conv: nn.Conv2d) -> Float[Tensor, "N D H W"]:
    """A 3x3 convolution (padding 1) of the picture with every row and column doubled, computed on the small grid.

    Of three neighbouring rows in the large grid two are one and the same in the small one: the lower two for even rows,
    the upper two for odd ones.
    """
    num_images, _, height, width = hidden_NChw.shape
    weight = conv.weight.float()
    out_NDHW = torch.empty(
        (num_images, conv.out_channels, 2 * height, 2 * width),
        dtype=hidden_NChw.dtype,
        device=hidden_NChw.device,
        memory_format=torch.channels_last,
    )
    for y in (0, 1):
        tall = two_of_three(weight, 2, y)
        for x in (0, 1):
            kernel = two_of_three(tall, 3, x).to(hidden_NChw.dtype).contiguous(memory_format=torch.channels_last)
            part = F.conv2d(hidden_NChw, kernel, conv.bias, padding=1)  # one row and column more than are wanted
            out_NDHW[:, :, y::2, x::2] = part[:, :, y : y + height, x : x + width]
    return out_NDHW


def two_of_three(weight: Tensor, dim: int, odd: int) -> Tensor:
    """A kernel of three along `dim` as the kernel of two that even (0) or odd (1) places need."""
    first, second, third = weight.split(1, dim)
    return torch.cat((first + second, third) if odd else (first, second + third), dim)
