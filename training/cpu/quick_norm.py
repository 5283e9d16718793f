"""Group normalisation whose backward pass is quick in bf16 on a CPU: the built-in one is several times slower there.

Nothing changes in value (beyond rounding) or in the weights; `quicken` is called on a model about to be trained.

Shape legend: N images, G groups, C channels, P = H * W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WORTH_IT = 256  # pixels; smaller grids are as quick with the built-in pass


class GroupNormFunction(torch.autograd.Function):
    """Built-in forward; the backward pass takes its sums over pixels as matrix products (channels last)."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        N, C, H, W = x_NCHW.shape
        y_NCHW, mean_NG, inverse_std_NG = torch.native_group_norm(x_NCHW, weight, bias, N, C, H * W, groups, eps)
        ctx.save_for_backward(x_NCHW, weight, mean_NG, inverse_std_NG)
        return y_NCHW

    @staticmethod
    def backward(ctx: Any, dy_NCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, weight, mean_NG, inverse_std_NG = ctx.saved_tensors
        N, C, H, W = x_NCHW.shape
        groups = mean_NG.shape[1]
        x_NPC, dy_NPC = (t.permute(0, 2, 3, 1).reshape(N, H * W, C) for t in (x_NCHW, dy_NCHW))
        ones_N1P = x_NPC.new_ones(N, 1, H * W)
        sum_dy_NC = torch.bmm(ones_N1P, dy_NPC).float()[:, 0]
        sum_dy_x_NC = torch.bmm(ones_N1P, dy_NPC * x_NPC).float()[:, 0]
        mean_NC, inverse_std_NC = (spread(t.float(), C) for t in (mean_NG, inverse_std_NG))

        def over_group(values_NC: Tensor) -> Tensor:
            return spread((values_NC * weight).view(N, groups, -1).sum(-1), C)

        # dx = a * dy + b * x + c, with numbers per image and channel.
        count = H * W * C // groups
        b_NC = (over_group(sum_dy_NC) * mean_NC - over_group(sum_dy_x_NC)) * inverse_std_NC**3 / count
        c_NC = -b_NC * mean_NC - over_group(sum_dy_NC) * inverse_std_NC / count
        a_NC = inverse_std_NC * weight
        a_N1C, b_N1C, c_N1C = (t[:, None].to(x_NPC.dtype) for t in (a_NC, b_NC, c_NC))
        dx_NPC = torch.addcmul(c_N1C, x_NPC, b_N1C).addcmul_(dy_NPC, a_N1C)
        dweight = ((sum_dy_x_NC - sum_dy_NC * mean_NC) * inverse_std_NC).sum(0)
        dx_NCHW = dx_NPC.view(N, H, W, C).permute(0, 3, 1, 2)
        return dx_NCHW, dweight.to(weight.dtype), sum_dy_NC.sum(0).to(weight.dtype), None, None


class QuickGroupNorm(nn.GroupNorm):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.dtype != torch.bfloat16 or x_NCHW.shape[-2] * x_NCHW.shape[-1] < WORTH_IT:
            return super().forward(x_NCHW)
        weight, bias = self.weight.to(x_NCHW.dtype), self.bias.to(x_NCHW.dtype)
        return GroupNormFunction.apply(x_NCHW, weight, bias, self.num_groups, self.eps)


def spread(values_NG: Tensor, channels: int) -> Tensor:
    """One value per group to one per channel."""
    return values_NG.repeat_interleave(channels // values_NG.shape[1], dim=1)


def quicken(model: nn.Module) -> nn.Module:
    """Every group norm inside trains quickly on a CPU. Changes the model in place; names and weights stay."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = QuickGroupNorm
    return model
