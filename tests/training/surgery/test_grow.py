"""Growing the resolution: the coarse scales, the eyes and the words stay what they were."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tests.assistant.test_model import picture
from training.data import BatchSettings, Row, collate
from training.loop import LoopSettings
from training.supervised import SftSettings, make_losses, report
from training.surgery.grow import continued, grow
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.chat.engine import ChatEngine
from vargpt.config import NANO_SCHEDULES
from vargpt.loading.models import save
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ChatRequest, ImageLayout, ImageTokens, Message


@pytest.fixture(scope="module")
def grown():
    return grow(tiny_model(), tiny_processor())


def test_nano_grows_by_the_schedule_that_its_config_names() -> None:
    assert continued(NANO_SCHEDULES["64x64"]) == NANO_SCHEDULES["128x128"]
    with pytest.raises(ValueError, match="both sides must be even"):
        continued([[1, 1], [3, 3]])


def test_a_picture_is_seen_as_its_halved_copy_was(grown) -> None:
    model, processor = grown
    noise = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    large = Image.fromarray(noise.numpy())
    asked = Message.of("user", large, "what is it?")
    before = tiny_processor().encode(
        [[Message.of("user", large.resize((32, 32), Image.Resampling.BOX), "what is it?")]], tiny_model()
    )
    after = processor.encode([[asked]], model)
    assert torch.equal(after["input_ids"], before["input_ids"]), "no more tokens than before"
    with torch.no_grad():
        features = [
            one.embed(batch["input_ids"], batch["pixel_values"], batch["image_grid_thw"])
            for one, batch in ((tiny_model(), before), (model, after))
        ]
    assert_close(features[1], features[0], atol=0.02, rtol=0.02)  # the halved copy is rounded to bytes
    assert (features[0] - features[0].mean(1, keepdim=True)).abs().max() > 0.2


def pictures(layout: ImageLayout, bits: torch.Tensor) -> PictureBatch:
    return PictureBatch(tokens=ImageTokens.from_flat(layout, bits))


def test_the_coarse_scales_are_predicted_as_before(grown) -> None:
    old, (model, _) = tiny_model(), grown
    layout, coarse = model.config.layout(), old.config.layout()
    assert layout.scales[: coarse.num_scales] == coarse.scales and layout.height == 2 * coarse.height
    ids = torch.tensor([[70, 80, old.placeholders.start, *[old.placeholders.slot] * layout.num_tokens]])
    bits = torch.rand(1, layout.num_tokens, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    head = ids[:, : 3 + coarse.num_tokens]
    with torch.no_grad():
        after = model.sequence_log_probs(ids, pictures=pictures(layout, bits)).image[:, : head.shape[1]]
        # the codes of a scale reach the next one through the last grid: up to half of that rounding is new
        same = model.config.scale_schedules | old.config.scale_schedules
        model.config.scale_schedules = same
        before = old.sequence_log_probs(head, pictures=pictures(coarse, bits[:, : coarse.num_tokens])).image
        kept = model.sequence_log_probs(head, pictures=pictures(coarse, bits[:, : coarse.num_tokens])).image
    assert_close(kept, before, atol=1e-5, rtol=1e-5)
    assert_close(after[:, 3:4], before[:, 3:4], atol=1e-5, rtol=1e-5)  # the first token: nothing was drawn before it
    assert after.isfinite().all()


def test_a_grown_model_draws_edits_learns_and_is_saved(grown, tmp_path) -> None:
    model, processor = grow(tiny_model(), tiny_processor())
    save(model, processor, tmp_path, dtype=torch.float32)
    model, processor = load(tmp_path, device="cpu", dtype="float32")
    assert processor.fixed_size == 64 and model.config.default_size == "64x64"
    edit = ChatRequest(messages=(Message.of("user", picture(0, (64, 64)), "replace it"),), route="image")
    (turn,) = ChatEngine(model, processor).reply_batch([edit])
    drawn = turn.message.images[0]
    assert drawn.image.size == (64, 64) and drawn.tokens.layout.num_tokens == 1 + 4 + 16 + 36 + 64
    layout = model.config.layout()
    rows = [Row(processor.conversation_ids([*edit.messages, turn.message], layout.num_tokens), 0)]
    settings = SftSettings(loop=LoopSettings(total_steps=1, learning_rate=0.0), batches=BatchSettings())
    loss, sums = make_losses(model, layout, settings)(model, collate(rows, processor))
    loss.backward()
    metrics = report(sums)
    assert metrics["image_loss"] > 0 and sum(name.startswith("bit_loss_") for name in metrics) == layout.num_scales
    assert model.vision.patch_embed.proj.weight.grad.abs().max() > 0
    assert isinstance(drawn.tokens, ImageTokens)


def test_what_cannot_grow_says_why() -> None:
    full = tiny_model(generator_config=tiny_model().config.generator_config.to_dict() | {"max_scales": 4})
    with pytest.raises(ValueError, match="no room for two more"):
        grow(full, tiny_processor())
    free = tiny_processor()
    free.fixed_size = None
    with pytest.raises(ValueError, match="one size"):
        grow(tiny_model(), free)
