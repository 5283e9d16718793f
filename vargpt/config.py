"""The configuration that is saved with the weights: one class per architecture, and a `VargptConfig` of them all.

text_config and vision_config are transformers' own Qwen2-VL configs; those of image tokenizers and generators are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig

from vargpt.types import ImageLayout, ImageSampling


class ArchitectureConfig(PreTrainedConfig):
    """What configs of image tokenizers and generators share: how older files of theirs are read.

    `fixed` names fields that files of earlier versions hold and that this architecture has but one value of;
    `forgotten` those that say nothing about the weights.
    """

    fixed: ClassVar[Mapping[str, Any]] = {}
    forgotten: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**without_old_fields(self, kwargs, self.fixed, self.forgotten))


def without_old_fields(
    config: PreTrainedConfig, fields: Mapping[str, Any], fixed: Mapping[str, Any], forgotten: frozenset[str]
) -> dict[str, Any]:
    """The fields of a file but for those that earlier versions had.

    Raises:
        ValueError: one of them held a value that the architecture does not have.
    """
    wrong = {name: fields[name] for name, value in fixed.items() if fields.get(name, value) != value}
    if wrong:
        raise ValueError(
            f"{type(config).__name__} has no such form: {wrong}; what it has is "
            f"{ {name: fixed[name] for name in wrong} }"
        )
    return {name: value for name, value in fields.items() if name not in fixed and name not in forgotten}


# What the training of a tokenizer once kept in its config; training/tokenizer has it now.
TRAINING_FIELDS = frozenset({"entropy_weight", "entropy_inv_temperature", "commitment_weight", "upsample_mode"})


@strict
class BsqTokenizerConfig(ArchitectureConfig):
    """Our image tokenizer: an autoencoder whose bits each depend on one cell and the coarser bits alone.

    `patch_size` folds squares of pixels into channels before the first convolution.
    """

    model_type = "vargpt_image_tokenizer"
    base_config_key = "image_tokenizer_config"
    fixed: ClassVar[Mapping[str, Any]] = {
        "attention": False, "norm_groups": 0, "token_patch": 1, "linear_path": True, "encoder_kernel_size": 1,
    }  # fmt: skip
    forgotten: ClassVar[frozenset[str]] = TRAINING_FIELDS

    num_bits: int = 16
    base_channels: int = 32
    channel_multipliers: list[int] | tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 1
    patch_size: int = 1
    initializer_range: float = 0.02

    @property
    def downsample_factor(self) -> int:
        """Pixels per cell of the final grid, along one axis."""
        return self.patch_size * 2 ** (len(self.channel_multipliers) - 1)

    def validate_bits(self) -> None:
        """Refuses code widths that the bitwise quantizer was never built for."""
        check_bits(self.num_bits, 1)


@strict
class InfinityTokenizerConfig(ArchitectureConfig):
    """Infinity's image tokenizer (arXiv 2412.04431): convolutions of 3x3, normalisation in `norm_groups` groups.

    With a `token_patch` of p, a token stands for p x p cells and has as many times more bits (Infinity-8B: 2).
    """

    model_type = "infinity_image_tokenizer"
    base_config_key = "image_tokenizer_config"
    fixed: ClassVar[Mapping[str, Any]] = {
        "attention": False, "patch_size": 1, "linear_path": False, "encoder_kernel_size": 3,
    }  # fmt: skip
    forgotten: ClassVar[frozenset[str]] = TRAINING_FIELDS

    num_bits: int = 32
    base_channels: int = 128
    channel_multipliers: list[int] | tuple[int, ...] = (1, 2, 4, 4, 4)
    num_res_blocks: int = 2
    norm_groups: int = 32
    token_patch: int = 1
    initializer_range: float = 0.02

    @property
    def downsample_factor(self) -> int:
        """Pixels per token of the final grid, along one axis."""
        return self.token_patch * 2 ** (len(self.channel_multipliers) - 1)

    @property
    def patch_size(self) -> int:
        """Pixels per place of the first convolution, along one axis."""
        return 1

    @property
    def feature_channels(self) -> int:
        """Bits of one cell of the quantizer."""
        return self.num_bits // self.token_patch**2

    def validate_bits(self) -> None:
        """Refuses code widths that the bitwise quantizer was never built for."""
        check_bits(self.num_bits, self.token_patch)


def check_bits(num_bits: int, token_patch: int) -> None:
    """Raises ValueError for a code width that a bitwise quantizer cannot have."""
    if not 8 <= num_bits <= 64:
        raise ValueError(f"num_bits must lie between 8 and 64, got {num_bits}")
    if token_patch < 1 or num_bits % token_patch**2:
        raise ValueError(f"num_bits ({num_bits}) must be a multiple of the square of token_patch")


@strict
class NextScaleConfig(ArchitectureConfig):
    """Our next-scale transformer. The first slot of the language model steers AdaLN; every token may repeat its source.

    `memory_size` is the width of the memory and of the language model's outputs handed over (after the projector).
    Positions are centres of tokens on a picture of `rope_grid` units.
    """

    model_type = "vargpt_next_scale"
    base_config_key = "generator_config"
    fixed: ClassVar[Mapping[str, Any]] = {
        "conditioning": "slots", "null_length": 1, "memory_projection": True, "slot_projection": True,
        "corner_positions": False, "input_residual": True, "source_memory": True, "source_copy": True,
        "cross_qk_norm": True, "cross_attention_rounded": False, "absolute_positions": True,
    }  # fmt: skip

    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 8
    mlp_ratio: float = 4.0
    code_dim: int = 16
    num_bits: int = 16
    memory_size: int = 256
    max_scales: int = 15
    rope_base: float = 10000.0
    rope_grid: int = 64
    norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def mlp_size(self) -> int:
        """Width inside the MLP of a block."""
        return round(self.hidden_size * self.mlp_ratio)


@strict
class InfinityConfig(ArchitectureConfig):
    """Infinity's next-scale transformer (arXiv 2412.04431), which VARGPT-v1.1 draws with, too.

    `memory_size` is the width of the text states. AdaLN and the start follow from an attentive pool over them; the
    learned null is a sequence of `null_length` states.
    """

    model_type = "infinity_next_scale"
    base_config_key = "generator_config"

    hidden_size: int = 2048
    num_layers: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4.0
    code_dim: int = 32
    num_bits: int = 32
    memory_size: int = 2048
    null_length: int = 512
    max_scales: int = 15
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def mlp_size(self) -> int:
        """Width inside the MLP of a block: a multiple of 256, as published."""
        return round(round(self.hidden_size * self.mlp_ratio) / 256) * 256


@strict
class VargptConfig(PreTrainedConfig):
    """All modules of one chat model, its special tokens, and the pictures it draws by default.

    `scale_schedules` maps "HEIGHTxWIDTH" in pixels to a coarse-to-fine list of (h, w); `default_size` is one of
    its keys. What size input pictures are brought to is the processor's affair (`VargptProcessor.fixed_size`).
    `image_sampling` holds fields of `ImageSampling`: how this model's pictures are drawn unless asked otherwise.
    """

    model_type = "vargpt"
    sub_configs = {
        "text_config": Qwen2VLTextConfig,
        "vision_config": Qwen2VLVisionConfig,
        "image_tokenizer_config": BsqTokenizerConfig,
        "generator_config": NextScaleConfig,
    }

    fixed: ClassVar[Mapping[str, Any]] = {
        "inner_projectors": False, "slots_by_length": False, "null_forgets_scales": False,
        "trains_as_published": False, "vision_norm": True, "vision_positions": True,
    }  # fmt: skip

    text_config: Any = None
    vision_config: Any = None
    image_tokenizer_config: Any = None
    generator_config: Any = None

    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    image_token_id: int = 151655
    image_gen_start_token_id: int = 151657
    image_gen_end_token_id: int = 151658
    image_gen_pad_token_id: int = 151659
    bos_token_id: int | None = 151643
    eos_token_id: int | list[int] | None = 151645
    pad_token_id: int | None = 151643

    scale_schedules: dict[str, Any] | None = None
    default_size: str = "64x64"
    image_sampling: dict[str, Any] | None = None
    tie_word_embeddings: bool = True
    image_loss_weight: float = 1.0
    text_loss_weight: float = 1.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if value is None:
                setattr(self, name, config_class())
            elif isinstance(value, dict):
                fields = {key: item for key, item in value.items() if key != "model_type"}
                setattr(self, name, config_class(**fields))
        if self.scale_schedules is None:
            self.scale_schedules = {size: [list(scale) for scale in scales] for size, scales in NANO_SCHEDULES.items()}
        super().__post_init__(**without_old_fields(self, kwargs, self.fixed, frozenset()))

    def validate_modules(self) -> None:
        """Refuses modules that could not work together; the message says which numbers differ."""
        tokenizer, generator = self.image_tokenizer_config, self.generator_config
        if not isinstance(tokenizer, PreTrainedConfig) or not isinstance(generator, PreTrainedConfig):
            return  # not built yet
        bits = {tokenizer.num_bits, generator.num_bits, generator.code_dim}
        if len(bits) > 1:
            raise ValueError(
                f"image_tokenizer_config.num_bits ({tokenizer.num_bits}), generator_config.num_bits "
                f"({generator.num_bits}) and generator_config.code_dim ({generator.code_dim}) must be equal"
            )
        for size, schedule in (self.scale_schedules or {}).items():
            if len(schedule) > generator.max_scales:
                raise ValueError(
                    f"the schedule of {size} has {len(schedule)} scales, but generator_config.max_scales is "
                    f"{generator.max_scales}"
                )

    def sampling(self) -> ImageSampling:
        """How pictures are drawn unless asked otherwise."""
        return ImageSampling(**(self.image_sampling or {}))

    def layout(self, size: tuple[int, int] | None = None) -> ImageLayout:
        """The layout of a picture of `size` = (height, width) pixels; None = the default size.

        Raises:
            ValueError: the model has no scale schedule for this size; the message lists the sizes it has.
        """
        key = self.default_size if size is None else f"{size[0]}x{size[1]}"
        return scheduled_layout(self.scale_schedules or {}, key)


def scheduled_layout(schedules: Mapping[str, Sequence[Sequence[int]]], key: str) -> ImageLayout:
    """The layout of "HEIGHTxWIDTH" among a model's scale schedules.

    Raises:
        ValueError: there is no such size; the message lists those there are.
    """
    if key not in schedules:
        raise ValueError(f"this model draws no {key} pictures (height x width); choose one of {sorted(schedules)}")
    height, width = (int(side) for side in key.split("x"))
    return ImageLayout(height, width, grids(schedules[key]))


def on_largest_grid(layout: ImageLayout, schedules: Mapping[str, Sequence[Sequence[int]]]) -> ImageLayout:
    """The same with the grid that Infinity rounds positions onto: the last of the longest schedule that begins so."""
    longer = [other for other in map(grids, schedules.values()) if other[: layout.num_scales] == layout.scales]
    return replace(layout, position_grid=max(longer, key=len)[-1])


def grids(schedule: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """A schedule as it is written in a config, as a layout has it."""
    return tuple((int(h), int(w)) for h, w in schedule)


# 64 px is a prefix of 128 px, so that the resolution can grow on the same weights.
NANO_SCHEDULES: dict[str, list[list[int]]] = {
    "64x64": [[1, 1], [2, 2], [3, 3], [4, 4], [6, 6], [8, 8]],
    "128x128": [[1, 1], [2, 2], [3, 3], [4, 4], [6, 6], [8, 8], [12, 12], [16, 16]],
    "48x64": [[1, 1], [2, 2], [2, 3], [3, 4], [4, 6], [6, 8]],
    "64x48": [[1, 1], [2, 2], [3, 2], [4, 3], [6, 4], [8, 6]],
}

for _config in (BsqTokenizerConfig, InfinityTokenizerConfig, NextScaleConfig, InfinityConfig, VargptConfig):
    AutoConfig.register(_config.model_type, _config)
