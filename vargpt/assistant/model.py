"""VARGPT: a language model that sees through a ViT, and draws through a next-scale generator it talks to.

In: token ids with placeholders, patches of input pictures, bits of drawn ones. Out in training: a text loss and an
image loss from one forward; at inference: text logits and pictures, over one `ConversationState`. After VARGPT-v1.1
(arXiv 2504.02949): every scale of a picture passes through the language model between two projectors, and the generator
cross-attends to the projected conversation.

Shape legend: B rows, T tokens, N drawn pictures, I input pictures, L slots of a picture, l slots of one scale, S memory
positions, D LLM width, M memory width, C generator width, V vocabulary, G guidance branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel, Qwen2VLTextModel
from transformers.utils import ModelOutput

from vargpt.assistant.conversation_state import ConversationState
from vargpt.assistant.drawing import DrawingMixin
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.assistant.sequence import (
    PlaceholderIds,
    Visibility,
    merged_grids,
    rope_positions,
    training_mask,
)
from vargpt.assistant.vision import FeatureNorm, PagePositions, picture_features
from vargpt.config import VargptConfig
from vargpt.generators.bitwise import BitwiseGenerator
from vargpt.generators.next_scale import NextScaleGenerator
from vargpt.tokenizers.bsq import BsqTokenizer, SignTokenizer
from vargpt.types import Branch, ImageContext, ImageLayout

IGNORE_INDEX = -100


@dataclass
class VargptOutput(ModelOutput):
    """`logits` "B T V" only when no labels are given; `scale_losses` "N K" in nats per bit."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_loss: Tensor | None = None
    image_loss: Tensor | None = None
    scale_losses: Tensor | None = None
    last_hidden_state: Tensor | None = None


@dataclass
class SequenceLogProbs(ModelOutput):
    """Log-probability of every token given what stands before it, "B T", in nats; 0 where nothing is predicted.

    `image` speaks of the tokens of drawn pictures, at their slots; `image_entropy` of how open each of them was; `text`
    of the words under labels (None without labels).
    """

    image: Tensor | None = None
    image_entropy: Tensor | None = None
    text: Tensor | None = None


@dataclass(frozen=True)
class DrawnPlaces:
    """Where the drawn pictures of a batch stand: `<start>` of picture n is token `start[n]` of row `row[n]`."""

    row: Int[Tensor, " N"]
    start: Int[Tensor, " N"]
    source: Int[Tensor, " N"]  # index of the last input picture before it in its row, or -1

    def spread(self, values: Float[Tensor, "N L"], shape: tuple[int, int]) -> Float[Tensor, "B T"]:
        """Values of the tokens of each picture, at its slots in a batch of this shape; 0 elsewhere."""
        slots = self.start[:, None] + 1 + torch.arange(values.shape[1], device=values.device)
        return values.new_zeros(shape).index_put((self.row[:, None], slots), values)


@dataclass(frozen=True)
class DrawnPictures:
    """What the generator draws the pictures of a batch from, and where they stand."""

    context: ImageContext
    places: DrawnPlaces


def round_up(length: int, step: int = 16) -> int:
    """The next multiple: few different sizes, so that kernels prepared for one are used again."""
    return -(-length // step) * step


def projector(width_in: int, width: int, width_out: int) -> nn.Sequential:
    """Linear, GELU, linear: the bridge between the language model's width and the generator's."""
    return nn.Sequential(nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width_out))


class VARGPT(DrawingMixin, PreTrainedModel):
    """The modules wired together. The generator never sees the language model: it gets `ImageContext`s.

    A published form that differs is a subclass (`vargpt/published/`), which overrides the small methods below.
    """

    config_class = VargptConfig
    config: VargptConfig
    generator_class: ClassVar[type[BitwiseGenerator]] = NextScaleGenerator
    image_tokenizer_class: ClassVar[type[SignTokenizer]] = BsqTokenizer
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    output_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    scale_weight_power: ClassVar[float] = 0.5  # of the number of tokens: what a scale weighs in the loss
    _no_split_modules = ["Qwen2VLDecoderLayer", "Qwen2VLVisionBlock", "Block"]
    _tied_weights_keys = {"lm_head.weight": "language_model.embed_tokens.weight"}
    _supports_sdpa = True
    _skip_keys_device_placement = ["past_key_values"]

    def __init__(self, config: VargptConfig) -> None:
        super().__init__(config)
        text, drawing = config.text_config, config.generator_config
        self.vision = Qwen2VisionTransformerPretrainedModel._from_config(config.vision_config)
        self.language_model = Qwen2VLTextModel._from_config(text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.make_bridges()
        self.generator = self.generator_class(drawing)
        self.image_tokenizer = self.image_tokenizer_class(config.image_tokenizer_config)
        self.placeholders = PlaceholderIds(
            image=config.image_token_id, slot=config.image_gen_pad_token_id, start=config.image_gen_start_token_id
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, BitwiseGenerator):
            # the share of the condition in AdaLN starts near zero, as in VAR
            init.normal_(module.shared_modulation[1].weight, mean=0.0, std=std * 0.1)
            init.normal_(module.head_modulation[1].weight, mean=0.0, std=std * 0.1)
            module.init_inputs()
        elif isinstance(module, PagePositions):
            init.zeros_(module.weight)
        elif isinstance(module, FeatureNorm):
            init.constant_(module.weight, 2 * std)  # words grow to about twice their first size
        elif "RMSNorm" in type(module).__name__:
            init.ones_(module.weight)

    def make_bridges(self) -> None:
        """The layers between ViT, language model and generator."""
        text, drawing = self.config.text_config, self.config.generator_config
        self.vision_norm: nn.Module = FeatureNorm(text.hidden_size, text.rms_norm_eps)
        self.vision_positions = PagePositions(text.hidden_size)
        self.projector_in = projector(drawing.hidden_size, text.hidden_size, text.hidden_size)
        self.projector_out = projector(text.hidden_size, drawing.memory_size, drawing.memory_size)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    # -- the sequence ----------------------------------------------------------------------------------------------

    def embed(
        self, input_ids: Int[Tensor, "B T"], pixel_values: Tensor | None, image_grid_thw: Tensor | None
    ) -> Float[Tensor, "B T D"]:
        """Token embeddings, with the ViT's features in the places of the picture placeholders."""
        embeds = self.language_model.embed_tokens(input_ids)
        if pixel_values is None or image_grid_thw is None:
            return embeds
        features = self.seen(picture_features(self.vision, pixel_values, image_grid_thw), image_grid_thw)
        mask = (input_ids == self.placeholders.image)[..., None].expand_as(embeds)
        if int(mask.sum()) != features.numel():
            expected = int((input_ids == self.placeholders.image).sum())
            raise ValueError(f"{expected} picture placeholders stand against {features.shape[0]} picture features")
        return embeds.masked_scatter(mask, features.to(embeds.dtype))

    def seen(self, features: Float[Tensor, "M D"], image_grid_thw: Int[Tensor, "I 3"]) -> Float[Tensor, "M D"]:
        """The ViT's features as the language model reads them: as large as words, and told where they stand."""
        features = self.vision_norm(features)
        grids = merged_grids(image_grid_thw, self.vision.spatial_merge_size)
        return features + self.vision_positions(grids, features.dtype)

    def training_attention(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
        grids: list[tuple[int, int, int]],
        conditions: Int[Tensor, "B T"] | None,
    ) -> tuple[Int[Tensor, "3 B T"], Bool[Tensor, "B 1 T T"]]:
        """Positions and mask of whole sequences; `conditions` holds a `Visibility` at every slot."""
        positions, _ = rope_positions(input_ids, attention_mask, self.placeholders, grids)
        return positions, training_mask(input_ids, attention_mask, self.placeholders, conditions)

    def known_branch(self, conditions: Int[Tensor, " N"]) -> Branch:
        """What drawn pictures of these `Visibility`s are drawn from, as far as it is known before a word is read."""
        return Branch(None)

    def visible_memory(
        self, mask: Bool[Tensor, "N S"], is_vision: Bool[Tensor, "N S"], conditions: Int[Tensor, " N"]
    ) -> Bool[Tensor, "N S"]:
        """Which states of its conversation each drawn picture may attend to."""
        mask = mask & (conditions != Visibility.NULL)[:, None]
        mask = mask & ((conditions != Visibility.IMAGE_ONLY)[:, None] | is_vision)
        return mask & ((conditions != Visibility.TEXT_ONLY)[:, None] | ~is_vision)

    def hidden_states(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
        pixel_values: Tensor | None,
        image_grid_thw: Tensor | None,
        slot_inputs: Float[Tensor, "N L C"] | None,
        conditions: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The language model over whole sequences, slots included (training)."""
        embeds = self.embed(input_ids, pixel_values, image_grid_thw)
        if slot_inputs is not None:
            slots = self.projector_in(slot_inputs).flatten(0, 1)
            mask = (input_ids == self.placeholders.slot)[..., None].expand_as(embeds)
            embeds = embeds.masked_scatter(mask, slots.to(embeds.dtype))
        grids = [] if image_grid_thw is None else merged_grids(image_grid_thw, self.vision.spatial_merge_size)
        positions, mask = self.training_attention(input_ids, attention_mask, grids, conditions)
        return self.language_model(
            inputs_embeds=embeds,
            attention_mask={"full_attention": mask},
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state

    def drawn_places(self, input_ids: Int[Tensor, "B T"], num_slots: int) -> DrawnPlaces:
        """The drawn pictures that have slots, row by row.

        Raises:
            ValueError: the slots of the batch are not whole pictures of `num_slots` tokens.
        """
        is_slot = input_ids == self.placeholders.slot
        opens = (input_ids == self.placeholders.start) & F.pad(is_slot[:, 1:], (0, 1))
        row, start = opens.nonzero(as_tuple=True)
        if int(is_slot.sum()) != row.numel() * num_slots:
            raise ValueError(
                f"{int(is_slot.sum())} image slots do not hold {row.numel()} pictures of {num_slots} tokens each"
            )
        is_vision = input_ids == self.placeholders.image
        first = is_vision & ~F.pad(is_vision[:, :-1], (1, 0))
        seen = first.flatten().cumsum(0).view_as(input_ids)  # pictures begun so far, over the whole batch
        before_row = F.pad(first.sum(1).cumsum(0)[:-1], (1, 0))
        last = seen[row, start]
        return DrawnPlaces(row, start, torch.where(last > before_row[row], last - 1, -1))

    def image_context(
        self,
        hidden: Float[Tensor, "B T D"],
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
        places: DrawnPlaces,
        num_slots: int,
        conditions: Int[Tensor, " N"],
        image_latents: Float[Tensor, "I h w d"] | None,
    ) -> ImageContext:
        """What the generator gets of each drawn picture: slots, and the memory its `Visibility` leaves it."""
        index = places.start[:, None] + 1 + torch.arange(num_slots, device=hidden.device)
        slots = self.projector_out(hidden[places.row[:, None], index])
        # slots of other pictures are in nobody's memory: drop them before the (wide) memory is spread over pictures
        keep = attention_mask & (input_ids != self.placeholders.slot)
        length = min(round_up(int(keep.sum(1).max())), keep.shape[1])
        order = (~keep).long().argsort(dim=1, stable=True)[:, :length]
        compact = self.projector_out(hidden.gather(1, order[..., None].expand(-1, -1, hidden.shape[-1])))
        kept, is_vision = keep.gather(1, order), (input_ids == self.placeholders.image).gather(1, order)
        mask = (kept[places.row]) & (order[places.row] < places.start[:, None])
        lengths = mask.sum(1)
        mask = self.visible_memory(mask, is_vision[places.row], conditions)
        source = source_mask = None
        if image_latents is not None:
            sees_source = (conditions == Visibility.FULL) | (conditions == Visibility.IMAGE_ONLY)
            source_mask = (places.source >= 0) & sees_source
            source = image_latents[places.source.clamp(min=0)]
        length = int(mask.any(0).nonzero().max()) + 1 if mask.any() else 1
        length = min(round_up(length), mask.shape[1])
        branch = replace(
            self.known_branch(conditions),
            memory=compact[places.row, :length],
            memory_mask=mask[:, :length],
            source=source,
            source_mask=source_mask,
            null_lengths=lengths,
        )
        return ImageContext((branch,), slots[None])

    # -- learning --------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Tensor | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        pixel_values: Float[Tensor, "P patch"] | None = None,
        image_grid_thw: Int[Tensor, "I 3"] | None = None,
        image_latents: Float[Tensor, "I h w d"] | None = None,
        pictures: PictureBatch | None = None,
        num_text_tokens: Tensor | float | None = None,
    ) -> VargptOutput:
        """Texts and pictures in any order in every row; the loss is text_weight * CE + image_weight * bit CE.

        Args:
            input_ids: with one placeholder per merged patch of an input picture and one slot per token of a drawn one;
                or one slot per drawn picture in all, which spares the language model the others: the generator then
                learns from its memory and the first slot.
            attention_mask: 0 or False at padding (either side); default all ones.
            labels: text targets, IGNORE_INDEX where none is due; shifted here, as everywhere in transformers.
            pixel_values: patches of the input pictures, in order of appearance.
            image_grid_thw: their grids.
            image_latents: final-scale latents of the input pictures, the sources of edits.
            pictures: the drawn pictures.
            num_text_tokens: what the sum over labelled tokens is divided by; default their number, which gives the
                mean. A part of a larger batch is given the number of the whole, so that the parts' losses add up.

        Raises:
            ValueError: placeholders and pictures do not fit.
        """
        hidden, drawn = self._read(input_ids, attention_mask, pixel_values, image_grid_thw, image_latents, pictures)
        output = VargptOutput(last_hidden_state=hidden)
        if labels is not None:
            output.text_loss = self._text_loss(hidden, labels, num_text_tokens)
        else:
            output.logits = self.lm_head(hidden)
        if pictures is not None and drawn is not None:
            output.scale_losses = self.generator.loss(
                drawn.context, pictures.tokens, self.image_tokenizer, pictures.targets, pictures.weights
            )
            output.image_loss = self._image_loss(output.scale_losses, pictures.tokens.layout, pictures.count)
        output.loss = self._total_loss(output)
        return output

    def sequence_log_probs(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Tensor | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        pixel_values: Float[Tensor, "P patch"] | None = None,
        image_grid_thw: Int[Tensor, "I 3"] | None = None,
        image_latents: Float[Tensor, "I h w d"] | None = None,
        pictures: PictureBatch | None = None,
        temperature: float | Sequence[float] = 1.0,
    ) -> SequenceLogProbs:
        """How likely the model finds the drawn pictures (and words) of whole conversations, in one forward.

        The conditional branch alone, without guidance: what `draw` samples from at guidance scale 1.

        Args:
            input_ids: as in `forward`, with one slot for every token of a drawn picture.
            attention_mask: as in `forward`.
            labels: words to be scored too, IGNORE_INDEX elsewhere; default none.
            pixel_values: as in `forward`.
            image_grid_thw: as in `forward`.
            image_latents: as in `forward`.
            pictures: what is scored: their `tokens`.
            temperature: of the pictures, one for all scales or one per scale; words are scored at 1.

        Raises:
            ValueError: placeholders and pictures do not fit, or slots are missing; a temperature of 0.
        """
        num_slots = int((input_ids == self.placeholders.slot).sum())
        num_tokens = 0 if pictures is None else len(pictures) * pictures.tokens.layout.num_tokens
        if num_slots < num_tokens:
            raise ValueError(f"{num_tokens} image tokens are scored at as many slots, but there are {num_slots}")
        hidden, drawn = self._read(input_ids, attention_mask, pixel_values, image_grid_thw, image_latents, pictures)
        output = SequenceLogProbs(text=None if labels is None else self._text_log_probs(hidden, labels))
        if pictures is not None and drawn is not None:
            scores = self.generator.scores(drawn.context, pictures.tokens, self.image_tokenizer, temperature)
            shape = (input_ids.shape[0], input_ids.shape[1])
            output.image = drawn.places.spread(scores.log_probs, shape)
            output.image_entropy = drawn.places.spread(scores.entropies, shape)
        return output

    def _read(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        image_grid_thw: Tensor | None,
        image_latents: Tensor | None,
        pictures: PictureBatch | None,
    ) -> tuple[Float[Tensor, "B T D"], DrawnPictures | None]:
        """The language model over whole sequences, and what the generator is then to be asked; see `forward`."""
        valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if pictures is None or not len(pictures):
            return self.hidden_states(input_ids, valid, pixel_values, image_grid_thw, None), None
        tokens, conditions = pictures.tokens, pictures.conditions
        layout = tokens.layout
        num_slots = self.slots_per_picture(input_ids, len(pictures), layout)
        places = self.drawn_places(input_ids, num_slots)
        if conditions is None:
            conditions = torch.zeros(places.row.numel(), dtype=torch.long, device=input_ids.device)
        token_conditions = self._spread_conditions(input_ids, places, conditions)
        slot_inputs = self.generator.slot_inputs(tokens, self.image_tokenizer, self.known_branch(conditions))
        fed = F.pad(slot_inputs, (0, 0, 0, num_slots - layout.num_tokens))  # or cut, to the first
        hidden = self.hidden_states(input_ids, valid, pixel_values, image_grid_thw, fed, token_conditions)
        heard = min(num_slots, layout.num_tokens)
        context = self.image_context(hidden, input_ids, valid, places, heard, conditions, image_latents)
        return hidden, DrawnPictures(replace(context, slot_inputs=slot_inputs), places)

    def slots_per_picture(self, input_ids: Tensor, num_pictures: int, layout: ImageLayout) -> int:
        """One for every token, or one in all."""
        only_first = int((input_ids == self.placeholders.slot).sum()) == num_pictures
        return 1 if only_first else layout.num_tokens

    def _spread_conditions(self, input_ids: Tensor, places: DrawnPlaces, conditions: Tensor) -> Int[Tensor, "B T"]:
        """The condition of the picture a token lies in, at every token from its `<start>` on."""
        owner = torch.zeros_like(input_ids)
        owner[places.row, places.start] = 1
        owner = owner.flatten().cumsum(0).view_as(input_ids)  # 1-based over the batch, in the order of the pictures
        return F.pad(conditions.to(owner.dtype), (1, 0))[owner]

    def _text_loss(self, hidden: Tensor, labels: Tensor, count: Tensor | float | None = None) -> Tensor:
        """Cross-entropy per labelled token (or its sum by `count`), with logits computed at those places only."""
        due = labels[:, 1:] != IGNORE_INDEX
        logits = self.lm_head(hidden[:, :-1][due])
        if logits.shape[0] == 0:
            return logits.sum() * 0.0
        if count is None:
            return F.cross_entropy(logits.float(), labels[:, 1:][due])
        return F.cross_entropy(logits.float(), labels[:, 1:][due], reduction="sum") / count

    def _text_log_probs(self, hidden: Tensor, labels: Tensor) -> Float[Tensor, "B T"]:
        """Log-probability of every labelled token, at its own place."""
        due = labels[:, 1:] != IGNORE_INDEX
        chosen = self.lm_head(hidden[:, :-1][due]).float().log_softmax(-1).gather(1, labels[:, 1:][due][:, None])
        return chosen.new_zeros(labels.shape).index_put((F.pad(due, (1, 0)),), chosen[:, 0])

    def _image_loss(
        self, scale_losses: Float[Tensor, "N K"], layout: ImageLayout, count: Tensor | float | None = None
    ) -> Tensor:
        """Our scales weigh by the square root of their tokens: fine ones carry the bits, coarse the composition."""
        sizes = torch.tensor([float(h * w) for h, w in layout.scales], device=scale_losses.device)
        weights = sizes**self.scale_weight_power
        losses = (scale_losses * (weights / weights.sum())).sum(1)
        return losses.mean() if count is None else losses.sum() / count

    def _total_loss(self, output: VargptOutput) -> Tensor | None:
        parts = []
        if output.text_loss is not None:
            parts.append(self.config.text_loss_weight * output.text_loss)
        if output.image_loss is not None:
            parts.append(self.config.image_loss_weight * output.image_loss)
        return sum(parts[1:], parts[0]) if parts else None


AutoModel.register(VargptConfig, VARGPT)
__all__ = ["IGNORE_INDEX", "VARGPT", "ConversationState", "VargptOutput"]
