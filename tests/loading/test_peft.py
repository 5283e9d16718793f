"""Adapters from peft on both halves of the model: off is off, merged is the same, and they travel alone."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close

from tests.assistant.test_model import CONVERSATION, GREEDY, draw_state, random_tokens, training_batch
from vargpt.assistant.model import VARGPT
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.assistant.processor import VargptProcessor
from vargpt.sampling import seeded
from vargpt.testing import tiny_model, tiny_processor

TARGETS = (
    r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    r"|.*generator\.blocks\..*\.(qkv|query|key_value|proj|mlp\.0|mlp\.2)"
)
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False)


@pytest.fixture(scope="module")
def processor() -> VargptProcessor:
    return tiny_processor()


@pytest.fixture(scope="module")
def batch(processor) -> dict:
    model = tiny_model()
    return training_batch(model, processor, [CONVERSATION]) | {"pictures": PictureBatch(tokens=random_tokens(model, 2))}


@pytest.fixture
def adapted() -> PeftModel:
    return get_peft_model(tiny_model(), LORA).eval()


def drawn_bits(model: VARGPT, processor: VargptProcessor) -> torch.Tensor:
    *_, last = model.draw(draw_state(model, processor), model.config.layout(), GREEDY, seeded([0]))
    return last.tokens.flat()


def test_adapters_sit_in_the_language_model_and_in_the_generator_and_nowhere_else(adapted) -> None:
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    places = {name.split("base_model.model.")[1].split(".")[0] for name in trainable}
    assert places == {"language_model", "generator"}
    per_layer = 7 + 7  # of the language model and of the generator, two layers each
    assert len(trainable) == 2 * 2 * per_layer


def test_an_adapter_that_is_off_changes_no_bit(adapted, batch, processor) -> None:
    plain = tiny_model()
    with adapted.disable_adapter(), torch.no_grad():
        off = adapted(**batch)
        drawn_off = drawn_bits(adapted.get_base_model(), processor)
    before = plain(**batch)
    assert torch.equal(off.scale_losses, before.scale_losses) and torch.equal(off.text_loss, before.text_loss)
    assert torch.equal(drawn_off, drawn_bits(plain, processor))
    assert not torch.allclose(adapted(**batch).scale_losses, before.scale_losses)


def test_a_merged_adapter_computes_what_the_adapter_beside_the_model_does(adapted, batch) -> None:
    beside = adapted(**batch)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, VARGPT) and not any("lora" in name for name, _ in merged.named_parameters())
    after = merged(**batch)
    assert_close(after.scale_losses, beside.scale_losses, atol=1e-4, rtol=1e-4)
    assert_close(after.text_loss, beside.text_loss, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_saved_alone_and_fits_the_model_it_came_from(adapted, batch, tmp_path) -> None:
    adapted.save_pretrained(tmp_path)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert size < 4 * sum(parameter.numel() for parameter in tiny_model().parameters()) / 4
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    assert torch.equal(loaded(**batch).scale_losses, adapted(**batch).scale_losses)


def test_a_step_of_training_moves_the_adapter_and_not_the_model(adapted, batch) -> None:
    before = {name: value.clone() for name, value in adapted.named_parameters()}
    adapted.train()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    adapted(**batch).loss.backward()
    optimizer.step()
    moved = {name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name}
