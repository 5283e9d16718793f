"""The configuration that is saved with the weights: one `VargptConfig` with a sub-config per organ.

text_config and vision_config are transformers' own Qwen2-VL configs; the image tokenizer's and the generator's are
ours. Field names of published behaviours that we do not share by default ("quirks") carry the published value in their
docstring line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig

from vargpt.types import ImageLayout, ImageSampling


@strict
class VargptImageTokenizerConfig(PreTrainedConfig):
    """The convolutional autoencoder and its bitwise multi-scale residual quantizer.

    `patch_size` folds squares of pixels into channels before the first convolution (published: 1); `linear_path` adds
    a linear map of each cell beside the network (published: False). `encoder_kernel_size` 1 and `norm_groups` 0 make
    the bits of a cell depend on that cell (and on the coarser bits) alone (published: 3, and 32 groups). With a
    `token_patch` of p, a token stands for p x p cells and has as many times more bits (Infinity-8B: 2).
    """

    model_type = "vargpt_image_tokenizer"
    base_config_key = "image_tokenizer_config"

    num_bits: int = 16
    base_channels: int = 32
    channel_multipliers: list[int] | tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 1
    attention: bool = False
    norm_groups: int = 8
    patch_size: int = 1
    token_patch: int = 1
    linear_path: bool = False
    encoder_kernel_size: int = 3
    upsample_mode: str = "bilinear"
    entropy_weight: float = 0.1
    entropy_inv_temperature: float = 1.0
    commitment_weight: float = 0.25
    initializer_range: float = 0.02

    @property
    def downsample_factor(self) -> int:
        """Pixels per cell of the final grid, along one axis."""
        return self.patch_size * self.token_patch * 2 ** (len(self.channel_multipliers) - 1)

    @property
    def feature_channels(self) -> int:
        """Bits of one cell of the quantizer."""
        return self.num_bits // self.token_patch**2

    def validate_bits(self) -> None:
        """Refuses code widths that the bitwise quantizer was never built for."""
        if not 8 <= self.num_bits <= 64:
            raise ValueError(f"num_bits must lie between 8 and 64, got {self.num_bits}")
        if self.token_patch < 1 or self.num_bits % self.token_patch**2:
            raise ValueError(f"num_bits ({self.num_bits}) must be a multiple of the square of token_patch")


@strict
class VargptGeneratorConfig(PreTrainedConfig):
    """The next-scale transformer that draws.

    `memory_size` is the width of the decoder memory and of the LLM outputs handed over (after the projector).
    `conditioning` is "slots" (the LLM's word on the first slot steers AdaLN) or, as published, "pooled": the memory is
    normalised and projected to the generator's width, AdaLN and the start follow from an attentive pool over it, and
    the learned null is a sequence of `null_length` states, as many as the memory it replaces has.
    `memory_projection` off (published VARGPT-v1.1, not Infinity) leaves the pooled memory as it comes, although the
    checkpoint holds the layers. `slot_projection` maps the LLM's outputs to the generator's width (published: False,
    they have it already), and `input_residual` adds each slot's own code embedding to them (published: False).
    `corner_positions` rounds rotary positions onto the layout's `position_grid` (published: True) where ours are
    centres of cells on a page of `rope_grid` units.
    `source_memory` appends the source image's final-scale latents to the memory of an edit (published: False).
    `source_copy` lets each token repeat the source of an edit (published: False); it needs `source_memory`.
    `cross_attention_rounded` rounds what enters and leaves attention over text to bfloat16 (published: True).
    `absolute_positions` also adds a linear map of the rotary angles to the input (published: False).
    `cross_qk_norm` l2-normalises queries and keys of cross-attention, with a learned temperature (published: False).
    """

    model_type = "vargpt_next_scale"
    base_config_key = "generator_config"

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
    conditioning: str = "slots"
    null_length: int = 1
    memory_projection: bool = True
    slot_projection: bool = True
    corner_positions: bool = False
    input_residual: bool = True
    source_memory: bool = True
    source_copy: bool = False
    cross_qk_norm: bool = True
    cross_attention_rounded: bool = False
    absolute_positions: bool = True
    norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def mlp_size(self) -> int:
        """Width inside the MLP of a block; published weights round it to a multiple of 256."""
        inner = round(self.hidden_size * self.mlp_ratio)
        return round(inner / 256) * 256 if self.conditioning == "pooled" else inner

    def validate_conditioning(self) -> None:
        """Refuses conditioning that does not exist."""
        if self.conditioning not in ("slots", "pooled"):
            raise ValueError(f"conditioning is 'slots' or 'pooled', got {self.conditioning!r}")
        if self.source_copy and not self.source_memory:
            raise ValueError("source_copy repeats what source_memory remembers: switch both on, or source_copy off")


@strict
class VargptConfig(PreTrainedConfig):
    """All organs of one model, its special tokens, and the pictures it draws by default.

    `scale_schedules` maps "HEIGHTxWIDTH" in pixels to a coarse-to-fine list of (h, w); `default_size` is one of
    its keys. What size input pictures are brought to is the processor's affair (`VargptProcessor.fixed_size`).

    `inner_projectors` keeps the first layer of both projectors at the width of what comes in (published: True).
    `slots_by_length` counts the positions of slots from the number of tokens before them instead of the position
    reached (published: True; the two differ after an input picture). `null_forgets_scales` lets the unconditional
    branch see nothing but its own scale in the language model, from position 0 (published: True).

    `trains_as_published` (published: True) has pictures learnt the way VARGPT-v1.1 does: their slots, padded to a
    multiple of 128, are ordinary tokens with ordinary positions that later text sees; a dropped condition is taken from
    AdaLN and the start alone; every bit counts alike.

    `vision_norm` brings the ViT's features to the loudness of words with a norm of their own (published: False, whose
    ViT was trained to it). Without it, a ViT that learns from nothing shouts its first constant at the language model.

    `vision_positions` adds a picture feature's place on its page to it (published: False; see `PagePositions`).

    `image_sampling` holds fields of `ImageSampling`: how this model's pictures are drawn unless asked otherwise.
    """

    model_type = "vargpt"
    sub_configs = {
        "text_config": Qwen2VLTextConfig,
        "vision_config": Qwen2VLVisionConfig,
        "image_tokenizer_config": VargptImageTokenizerConfig,
        "generator_config": VargptGeneratorConfig,
    }

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
    inner_projectors: bool = False
    slots_by_length: bool = False
    null_forgets_scales: bool = False
    trains_as_published: bool = False
    vision_norm: bool = False
    vision_positions: bool = False
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
        super().__post_init__(**kwargs)

    def validate_organs(self) -> None:
        """Refuses organs that could not work together; the message says which numbers differ."""
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
        return scheduled_layout(self.scale_schedules or {}, key, self.generator_config.corner_positions)


def scheduled_layout(
    schedules: Mapping[str, Sequence[Sequence[int]]], key: str, corner_positions: bool = False
) -> ImageLayout:
    """The layout of "HEIGHTxWIDTH" among a model's scale schedules.

    With `corner_positions` it names the last grid of the longest schedule that goes on from this one.

    Raises:
        ValueError: there is no such size; the message lists those there are.
    """
    if key not in schedules:
        raise ValueError(f"this model draws no {key} pictures (height x width); choose one of {sorted(schedules)}")
    height, width = (int(side) for side in key.split("x"))
    scales = grids(schedules[key])
    longer = [other for other in map(grids, schedules.values()) if other[: len(scales)] == scales]
    return ImageLayout(height, width, scales, max(longer, key=len)[-1] if corner_positions else None)


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

AutoConfig.register("vargpt_image_tokenizer", VargptImageTokenizerConfig)
AutoConfig.register("vargpt_next_scale", VargptGeneratorConfig)
AutoConfig.register("vargpt", VargptConfig)
