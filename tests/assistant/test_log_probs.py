"""What the model says of pictures it is shown: the same in a batch and alone, and what it really draws from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.assistant.test_model import CONVERSATION, draw_state, picture, pictures_of, random_tokens, training_batch
from vargpt.assistant.model import IGNORE_INDEX, VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.generators import bitwise
from vargpt.sampling import seeded
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ImageSampling, Message

DRAWING = [Message.of("user", "draw a fox next to a pine tree"), Message.of("assistant", "A fox.", picture(4))]


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny_model()


@pytest.fixture(scope="module")
def processor() -> VargptProcessor:
    return tiny_processor()


def test_the_log_probs_of_pictures_are_the_sums_of_their_bit_losses(model, processor) -> None:
    batch = training_batch(model, processor, [CONVERSATION])
    bits = random_tokens(model, 2).flat()
    layout = model.config.layout()
    scored = model.sequence_log_probs(**batch, pictures=pictures_of(model, bits))
    nats_per_bit = model(**batch, pictures=pictures_of(model, bits)).scale_losses  # "N K"
    bits_per_scale = torch.tensor([8.0 * h * w for h, w in layout.scales])
    assert_close(scored.image.sum(), -(nats_per_bit * bits_per_scale).sum(), atol=1e-3, rtol=1e-5)
    at_slots = batch["input_ids"] == processor.special.gen_pad
    assert (scored.image[at_slots] < 0).all() and (scored.image[~at_slots] == 0).all()


def test_the_log_probs_of_words_are_what_the_text_loss_is_the_mean_of(model, processor) -> None:
    batch = training_batch(model, processor, [CONVERSATION, DRAWING])
    bits = random_tokens(model, 3).flat()
    scored = model.sequence_log_probs(**batch, pictures=pictures_of(model, bits)).text
    due = batch["labels"] != IGNORE_INDEX
    assert_close(
        -scored.sum() / due.sum(), model(**batch, pictures=pictures_of(model, bits)).text_loss, atol=1e-5, rtol=1e-5
    )
    assert (scored[due] < 0).all() and (scored[~due] == 0).all()


def test_conversations_are_scored_alike_in_one_batch_and_one_by_one(model, processor) -> None:
    conversations, bits = [CONVERSATION, DRAWING], random_tokens(model, 3).flat()
    together = model.sequence_log_probs(
        **training_batch(model, processor, conversations), pictures=pictures_of(model, bits)
    )
    for row, own in enumerate((bits[:2], bits[2:])):
        alone = model.sequence_log_probs(
            **training_batch(model, processor, [conversations[row]]), pictures=pictures_of(model, own)
        )
        length = alone.image.shape[1]
        for name in ("image", "image_entropy", "text"):
            assert_close(together[name][row, :length], alone[name][0], atol=1e-4, rtol=1e-4)
            assert (together[name][row, length:] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, (0.5, 0.8, 2.0)])
def test_a_drawn_picture_has_the_probability_with_which_its_bits_were_sampled(
    model, processor, temperature, monkeypatch
) -> None:
    sampled: list[torch.Tensor] = []
    sample_bits = bitwise.sample_bits

    def spy(logits, sampling, rngs, k, scale):
        bits = sample_bits(logits, sampling, rngs, k, scale)
        at = sampling.temperature if isinstance(sampling.temperature, float) else sampling.temperature[k]
        chosen = bits.flatten(1, 2).long()[..., None]
        sampled.append((logits.float() / at).log_softmax(-1).gather(-1, chosen)[..., 0].sum(-1))
        return bits

    monkeypatch.setattr(bitwise, "sample_bits", spy)
    sampling = ImageSampling(guidance_scale=1.0, temperature=temperature)
    *_, last = model.draw(draw_state(model, processor), model.config.layout(), sampling, seeded([3]))
    batch = training_batch(model, processor, [CONVERSATION])
    bits = torch.cat((random_tokens(model, 1).flat(), last.tokens.flat()))
    scored = model.sequence_log_probs(**batch, pictures=pictures_of(model, bits), temperature=temperature)
    second = scored.image[scored.image != 0][bits.shape[1] :]
    assert_close(second, torch.cat(sampled, dim=1)[0], atol=1e-4, rtol=1e-4)


def test_entropy_is_the_mean_surprise_of_a_token(model, processor) -> None:
    """With a head that knows nothing of its input every bit is the same coin, whose entropy is known."""
    coin = tiny_model()
    coin.generator.head.weight.data.zero_()
    coin.generator.head.bias.data.copy_(torch.tensor([0.0, 1.5]).repeat(8))
    batch = training_batch(coin, processor, [DRAWING])
    scored = coin.sequence_log_probs(
        **batch, pictures=pictures_of(coin, random_tokens(coin, 1).flat()), temperature=0.5
    )
    p = torch.tensor(1.5 / 0.5).sigmoid()
    expected = 8 * F.binary_cross_entropy(p, p)
    assert_close(scored.image_entropy[scored.image != 0], expected.expand(21), atol=1e-5, rtol=1e-5)


def test_missing_slots_and_greedy_drawing_have_no_log_probs(model, processor) -> None:
    batch = training_batch(model, processor, [DRAWING])
    bits = random_tokens(model, 1).flat()
    with pytest.raises(ValueError, match="temperature above 0"):
        model.sequence_log_probs(**batch, pictures=pictures_of(model, bits), temperature=0.0)
    encoded = processor.conversation_ids(DRAWING, num_slots=1, cut_last_picture=True)
    with pytest.raises(ValueError, match="21 image tokens are scored at as many slots, but there are 1"):
        model.sequence_log_probs(input_ids=torch.tensor([encoded.input_ids]), pictures=pictures_of(model, bits))
