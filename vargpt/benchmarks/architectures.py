"""Published architectures on random weights, ready to draw: what a benchmark needs of a model, and no checkpoint.

In: a name or a config. Out: a `Subject`. Speed does not depend on what the weights are. The vocabulary and the ViT are
left small, since neither is asked while a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from vargpt.assistant.conversation_state import ConversationState
from vargpt.generators.infinity import InfinityGenerator
from vargpt.generators.schedules import infinity_schedules
from vargpt.loading.packing import pack, pack_generator
from vargpt.published.vargpt_v1_1 import VargptV11, VargptV11Config, config_from_published
from vargpt.sampling import seeded
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import Branch, ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens

PROMPT_LENGTH = 32  # tokens of the text that is drawn from
VOCABULARY = 512
GREEDY = ImageSampling(guidance_scale=3.0, temperature=0.0)
INFINITY_125M = {"hidden_size": 768, "num_layers": 12, "num_heads": 8, "memory_size": 768}
QWEN2_HALF_B = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "rope_scaling": {"mrope_section": [8, 12, 12]},
}  # fmt: skip
QWEN2_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "rope_scaling": {"mrope_section": [16, 24, 24]},
}  # fmt: skip


def infinity(decoder: dict[str, Any], autoencoder: dict[str, Any] | None = None) -> VargptV11Config:
    """What the arguments change in the published sizes; modules that Infinity has not are at their defaults."""
    return VargptV11Config(
        generator_config=decoder,
        image_tokenizer_config=autoencoder or {},
        scale_schedules=infinity_schedules(),
        default_size="256x256",
    )


def vargpt(text: dict[str, Any], decoder: dict[str, Any], autoencoder: dict[str, Any] | None = None) -> VargptV11Config:
    """With published behaviours, token ids that fit `VOCABULARY`, and a ViT of one layer."""
    names = (
        "vision_start_token_id", "vision_end_token_id", "image_token_id", "image_gen_start_token_id",
        "image_gen_end_token_id", "image_gen_pad_token_id", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    published = {
        **text,
        **{name: VOCABULARY - 1 - index for index, name in enumerate(names)},
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "vision_config": {"depth": 1, "embed_dim": 64, "hidden_size": text["hidden_size"], "num_heads": 1},
    }
    return config_from_published(published, decoder, autoencoder)


ARCHITECTURES = {
    "infinity-125m": (lambda: infinity({**INFINITY_125M, "memory_size": 2048}), False),
    "infinity-2b": (lambda: infinity({}), False),
    "vargpt-0.5b": (lambda: vargpt(QWEN2_HALF_B, INFINITY_125M), True),
    "vargpt-7b": (lambda: vargpt(QWEN2_7B, {}), True),
}


def named(name: str) -> tuple[VargptV11Config, bool]:
    """The config of a published architecture, and whether a language model takes part.

    Raises:
        ValueError: there is no such architecture; the message lists those that there are.
    """
    if name not in ARCHITECTURES:
        close = get_close_matches(name, ARCHITECTURES, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"unknown architecture {name!r}{hint}; choose one of {', '.join(ARCHITECTURES)}")
    make, talks = ARCHITECTURES[name]
    return make(), talks


def num_parameters(config: VargptV11Config, talks: bool) -> int:
    """Weights of the organs that `Subject` builds, counted without memory for them."""
    organs: list[nn.Module]
    with torch.device("meta"):
        organs = [VargptV11(config)] if talks else [InfinityGenerator(config.generator_config), tokenizer(config)]
    return sum(parameter.numel() for organ in organs for parameter in organ.parameters())


def tokenizer(config: VargptV11Config) -> InfinityTokenizer:
    return InfinityTokenizer(config.image_tokenizer_config)


@dataclass
class Subject:
    """The organs, and one thing to draw. Guidance has two branches: the prompt, and the null."""

    config: VargptV11Config
    layout: ImageLayout
    generator: InfinityGenerator
    image_tokenizer: InfinityTokenizer
    memory: Tensor  # "1 S D": what the generator cross-attends to
    pooled: Tensor | None = None  # "1 1 D"
    model: VargptV11 | None = None
    state: ConversationState | None = None

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        config: VargptV11Config,
        talks: bool,
        layout: ImageLayout,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Subject:
        """Equal seeds give equal weights and prompts."""
        torch.manual_seed(seed)
        if not talks:
            with torch.device(device):
                generator, codec = InfinityGenerator(config.generator_config), tokenizer(config)
                memory = torch.randn(1, PROMPT_LENGTH, config.generator_config.memory_size)
            return cls(config, layout, frozen(generator), frozen(codec), memory)
        with torch.device(device):
            model = VargptV11(config)
            ids = torch.randint(0, VOCABULARY // 2, (1, PROMPT_LENGTH + 1))
        frozen(model)
        ids[:, -1] = config.image_gen_start_token_id
        state = model.extend(None, ids)
        memory = model.projector_out(state.hidden[:, :-1])
        pooled = model.start_state.expand(1, 1, -1)
        return cls(config, layout, model.generator, model.image_tokenizer, memory, pooled, model, state)

    @property
    def language_model(self) -> nn.Module | None:
        return None if self.model is None else self.model.language_model

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (Branch(self.memory, pooled=self.pooled), Branch(None))

    def draw(self, given: ImageTokens | None = None) -> Iterator[ImageProgress]:
        """The library's own way. Every bit is the likelier one."""
        rngs = seeded([0])
        if self.model is None or self.state is None:
            context = ImageContext(self.branches)
            return self.generator.generate(context, self.layout, GREEDY, rngs, self.image_tokenizer, given)
        return self.model.draw(self.state, self.layout, GREEDY, rngs, given)

    def pack(self, dtype: torch.dtype) -> None:
        """See `packing`; the decoder computes in `dtype`."""
        if self.model is not None:
            pack(self.model, dtype)
        else:
            pack_generator(self.generator, dtype)
            self.image_tokenizer.decoder.to(dtype)


def frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)
