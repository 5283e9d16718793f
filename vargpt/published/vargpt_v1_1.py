"""VARGPT-v1.1 (arXiv 2504.02949) as it was published: what it does differently from ours, its config, its loading.

The differences, each an override below: the projectors keep the width of what comes in; the ViT's features are taken as
they are; the decoder is Infinity's, pooled from a state of its own and without a projected memory; slots are counted by
tokens; the unconditional branch sees one scale at a time; in training, slots are ordinary tokens, padded to a multiple
of 128, a dropped condition is taken from AdaLN and the start alone, and every bit counts alike. No edit repeats its
source.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vargpt.assistant.conversation_state import ConversationState
from vargpt.assistant.model import VARGPT, projector, round_up
from vargpt.assistant.processor import VargptProcessor
from vargpt.assistant.sequence import Visibility, continued_mask
from vargpt.assistant.special_tokens import NAMES as CONTROL_TOKEN_NAMES
from vargpt.config import InfinityConfig, InfinityTokenizerConfig, VargptConfig, on_largest_grid
from vargpt.generators.infinity import InfinityGenerator
from vargpt.generators.schedules import infinity_schedules
from vargpt.loading.checkpoint_files import empty_weights, load_weights, read_shapes, read_tensors, weight_files
from vargpt.loading.models import read_config
from vargpt.loading.quantization import Quantization, quantize_parameter
from vargpt.published.vargpt_v1_1_weights import modules_from_shapes, vargpt_map
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import Branch, EditCodec, ImageLayout, ImageTokens

PUBLISHED_SAMPLING: dict[str, Any] = {"guidance_scale": 3.0, "temperature": 0.5, "top_p": 0.97}
PUBLISHED_TYPE = "vargpt_qwen2_vl"
CONTROL_TOKENS = tuple(CONTROL_TOKEN_NAMES.values())
SLOT_STEP = 128  # the slots of a drawn picture are padded to a multiple of this in training
TOKEN_IDS = (
    "vision_start_token_id", "vision_end_token_id", "image_token_id", "image_gen_start_token_id",
    "image_gen_end_token_id", "image_gen_pad_token_id",
)  # fmt: skip
TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range",
    "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip
VISION_FIELDS = (
    "depth", "embed_dim", "hidden_size", "hidden_act", "mlp_ratio", "num_heads", "patch_size", "spatial_merge_size",
    "temporal_patch_size",
)  # fmt: skip


@strict
class VargptV11Config(VargptConfig):
    """Of a VARGPT-v1.1, in our own format."""

    model_type = "vargpt_v1_1"
    sub_configs = {
        "text_config": Qwen2VLTextConfig,
        "vision_config": Qwen2VLVisionConfig,
        "image_tokenizer_config": InfinityTokenizerConfig,
        "generator_config": InfinityConfig,
    }
    fixed: ClassVar[Mapping[str, Any]] = {}

    def layout(self, size: tuple[int, int] | None = None) -> ImageLayout:
        return on_largest_grid(super().layout(size), self.scale_schedules or {})


class VargptV11Generator(InfinityGenerator):
    """Infinity's transformer behind a language model: its word is all that enters at a token, and the whole memory.

    The layers that would project the memory are in the checkpoint, but not applied.
    """

    special_settings: ClassVar[frozenset[str]] = frozenset({"guidance_layer", "image_guidance_scale"})

    def projected(self, states: Float[Tensor, "GN S D"]) -> Float[Tensor, "GN S D"]:
        return states

    def slot_inputs(self, tokens: ImageTokens, codec: EditCodec, known: Branch) -> Float[Tensor, "N L C"]:
        """As for all bitwise generators; what is pooled joins the start."""
        condition = self.pooled(self.pooled_states(known, tokens.num_images))
        start = (self.start + condition[:, None]).expand(-1, tokens.layout.offsets[1], -1)
        return self.with_codes(start, tokens, codec)


class VargptV11(VARGPT):
    """The published model."""

    config_class = VargptV11Config
    config: VargptV11Config
    generator_class = VargptV11Generator
    image_tokenizer_class = InfinityTokenizer
    scale_weight_power: ClassVar[float] = 1.0

    def make_bridges(self) -> None:
        text, drawing = self.config.text_config, self.config.generator_config
        self.projector_in = projector(drawing.hidden_size, drawing.hidden_size, text.hidden_size)
        self.projector_out = projector(text.hidden_size, text.hidden_size, drawing.memory_size)
        # what the decoder's condition and start are pooled from
        self.start_state = nn.Parameter(torch.randn(drawing.memory_size) * self.config.initializer_range)

    def seen(self, features: Float[Tensor, "M D"], image_grid_thw: Int[Tensor, "I 3"]) -> Float[Tensor, "M D"]:
        return features

    def edit_sources(self, pixel_values: Float[Tensor, "I 3 H W"]) -> None:
        return None

    def known_branch(self, conditions: Int[Tensor, " N"]) -> Branch:
        pooled = self.start_state.expand(len(conditions), 1, -1)
        return Branch(None, pooled=pooled, pooled_mask=conditions != Visibility.NULL)

    # -- training --------------------------------------------------------------------------------------------------

    def training_attention(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
        grids: list[tuple[int, int, int]],
        conditions: Int[Tensor, "B T"] | None,
    ) -> tuple[Int[Tensor, "3 B T"], Bool[Tensor, "B 1 T T"]]:
        if not bool((input_ids == self.placeholders.slot).any()):
            return super().training_attention(input_ids, attention_mask, grids, conditions)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand(3, len(input_ids), -1)
        return positions, continued_mask(attention_mask[:, :0], attention_mask)

    def visible_memory(
        self, mask: Bool[Tensor, "N S"], is_vision: Bool[Tensor, "N S"], conditions: Int[Tensor, " N"]
    ) -> Bool[Tensor, "N S"]:
        conditions = conditions.masked_fill(conditions == Visibility.NULL, int(Visibility.FULL))
        return super().visible_memory(mask, is_vision, conditions)

    def slots_per_picture(self, input_ids: Tensor, num_pictures: int, layout: ImageLayout) -> int:
        return round_up(layout.num_tokens, SLOT_STEP)

    # -- drawing ---------------------------------------------------------------------------------------------------

    def slot_position(self, state: ConversationState) -> Int[Tensor, " B"]:
        """The number of tokens before it, which is less than the position reached once a picture was read."""
        return state.mask.sum(1)

    def forgetful(self, keys: Bool[Tensor, "R T"]) -> Bool[Tensor, " R"]:
        """The unconditional branch, which begins every scale at position 0."""
        return ~keys.any(1)


def config_from_published(
    published: Mapping[str, Any],
    decoder: Mapping[str, Any] | None = None,
    autoencoder: Mapping[str, Any] | None = None,
) -> VargptV11Config:
    """Our config for a published config.json (model_type "vargpt_qwen2_vl").

    Args:
        published: the parsed file. Multimodal rotary positions are understood in both spellings.
        decoder: what differs from Infinity-2B's transformer, which `InfinityConfig` has by default.
        autoencoder: what differs from the d32 autoencoder, which `InfinityTokenizerConfig` has by default.

    Raises:
        ValueError: something that the model cannot do without is missing; the message names it.
    """
    ids = {**published, **published.get("special_tokens", {})}
    rope = dict(published.get("rope_scaling") or published.get("rope_parameters") or {})
    missing = [name for name in ("vision_config", *TEXT_FIELDS[:6]) if name not in published]
    if missing or "mrope_section" not in rope:
        raise ValueError(f"config.json lacks {', '.join(missing or ['rope_scaling.mrope_section'])}: is it VARGPT's?")
    text = {name: published[name] for name in TEXT_FIELDS if name in published}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": rope.get("rope_theta", published.get("rope_theta", 1e6)),
        "mrope_section": rope["mrope_section"],
    }
    return VargptV11Config(
        text_config=text,
        vision_config={name: published["vision_config"][name] for name in VISION_FIELDS
                       if name in published["vision_config"]},
        image_tokenizer_config=dict(autoencoder or {}),
        generator_config=dict(decoder or {}),
        scale_schedules=infinity_schedules(),
        default_size="512x512",
        image_sampling=dict(PUBLISHED_SAMPLING),
        tie_word_embeddings=bool(published.get("tie_word_embeddings", False)),
        **{name: ids[name] for name in TOKEN_IDS if name in ids},
    )  # fmt: skip


def load_published(
    path: Path, dtype: torch.dtype, device: torch.device, quantization: Quantization | None
) -> tuple[VargptV11, VargptProcessor]:
    """A published repository."""
    model = read_published_model(path, dtype, device, quantization)
    return model, published_processor(path, model.config)


def read_published_model(
    path: Path, dtype: torch.dtype, device: torch.device, quantization: Quantization | None = None
) -> VargptV11:
    """The model of a published repository, tensor by tensor: in memory are the model and one tensor more.

    The sizes of decoder and autoencoder, which the published config leaves to code, are read off the weights.

    Raises:
        FileNotFoundError: weights are missing.
        ValueError: weights and config do not belong together; the message names what differs.
    """
    files = weight_files(path)
    decoder, autoencoder, chunks = modules_from_shapes(read_shapes(files))
    config = config_from_published(read_config(path), decoder, autoencoder)
    with empty_weights():
        model = VargptV11(config)

    def on_complete(name: str) -> None:
        if quantization is not None:
            quantize_parameter(model, name, quantization)

    load_weights(model, vargpt_map(config, chunks), read_tensors(files), dtype, device, on_complete)
    return model


def published_processor(path: Path, config: VargptConfig) -> VargptProcessor:
    """Tokenizer and image processor of a published repository, as ours; control tokens that it lacks are appended.

    Raises:
        FileNotFoundError: the repository holds no tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{path} holds no tokenizer that can be read ({error}); "
            "download tokenizer.json and tokenizer_config.json too"
        ) from error
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in CONTROL_TOKENS if token not in vocabulary]
    tokenizer.add_tokens(missing, special_tokens=True)
    vision = config.vision_config
    if (path / "preprocessor_config.json").is_file():
        pictures = Qwen2VLImageProcessorPil.from_pretrained(path)
    else:
        pictures = Qwen2VLImageProcessorPil(patch_size=vision.patch_size, merge_size=vision.spatial_merge_size)
    template = (Path(__file__).parents[1] / "assistant" / "chat_template.jinja").read_text(encoding="utf-8")
    return VargptProcessor(
        pictures, tokenizer, chat_template=template, max_context=config.text_config.max_position_embeddings
    )


AutoConfig.register(VargptV11Config.model_type, VargptV11Config)
AutoModel.register(VargptV11Config, VargptV11)
AutoProcessor.register(VargptV11Config, VargptProcessor)
