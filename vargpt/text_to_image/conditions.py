"""What a model that only draws is conditioned on, as the guidance branches that its generator reads.

In: prompts, and what guidance leads away from. Out: one `Branch` each. A model that draws by class label brings another
class with these two methods.

Shape legend: N pictures, S text tokens, D width of a text state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from vargpt.text_to_image.text_encoder import TextEncoder
from vargpt.types import Branch


class TextConditions(nn.Module):
    """Prompts as the states of a text encoder."""

    def __init__(self, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def branch(self, prompts: Sequence[str]) -> Branch:
        """The conditional branch; one prompt per picture."""
        text = self.text_encoder(prompts)
        return Branch(text.states, text.mask)

    def negative_branch(self, prompts: Sequence[str]) -> Branch:
        """What guidance leads away from; "" stands for the generator's learned null.

        A row that may attend nothing gets as much of the null as its prompt is long, from the generator.
        """
        if not any(prompts):
            return Branch(None, label="null")
        text = self.text_encoder(prompts)
        present = torch.tensor([bool(prompt) for prompt in prompts], device=text.mask.device)
        return Branch(text.states, text.mask & present[:, None], label="negative")


def to(branch: Branch, device: torch.device, dtype: torch.dtype) -> Branch:
    """The branch where the generator is, in its dtype; the text encoder may be elsewhere."""
    if branch.memory is None:
        return branch
    mask = None if branch.memory_mask is None else branch.memory_mask.to(device)
    return replace(branch, memory=branch.memory.to(device, dtype), memory_mask=mask)
