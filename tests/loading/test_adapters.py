"""Adapters on a loaded model: off is off, merged is the same, and several of them keep to themselves."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close

from tests.assistant.test_model import CONVERSATION, random_tokens, training_batch
from tests.chat.scripted import ask
from tests.loading.test_quantization import wide_model
from training.finetune.lora_targets import LoraSettings, begin, lora_config
from vargpt.assistant.model import VARGPT
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.chat.engine import ChatEngine
from vargpt.loading.adapters import CARD, CONFIG, AdapterCard, Adapters, inject, read_card, save_adapter
from vargpt.loading.models import save
from vargpt.loading.quantization import quantize
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ChatRequest, TurnFinished

BASE = "0123456789abcdef"


def make_adapter(folder: Path, name: str, seed: int, base: VARGPT | None = None, base_hash: str | None = BASE) -> Path:
    """A folder with an adapter that changes everything at random."""
    model = base or tiny_model()
    config = lora_config(LoraSettings(rank=4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(model, config, "made")
        for parameter_name, parameter in model.named_parameters():
            if ".made." in parameter_name:
                parameter.data = torch.randn_like(parameter) * 0.3
    save_adapter(model, "made", config, AdapterCard(name=name, base="tiny", base_hash=base_hash), folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(root / name, name, seed) for seed, name in enumerate(("robot", "crayon"))]


@pytest.fixture
def engine(folders: list[Path]) -> ChatEngine:
    engine = ChatEngine(tiny_model(), tiny_processor(), "tiny", BASE)
    for folder in folders:
        engine.adapters.load(folder)
    return engine


def plain_engine() -> ChatEngine:
    return ChatEngine(tiny_model(), tiny_processor(), "tiny", BASE)


def drawing(adapter: str | tuple[str, ...] | None, seed: int = 0) -> ChatRequest:
    return ask("draw a fox", route="image", adapter=adapter, seed=seed)


def bits(turn: TurnFinished) -> torch.Tensor:
    return turn.message.images[0].tokens.flat()


def said(engine: ChatEngine, adapter: str | tuple[str, ...] | None) -> str:
    return engine.reply(ask("what is a fox?", route="text", adapter=adapter)).message.text


@torch.no_grad()
def losses(model: VARGPT) -> torch.Tensor:
    batch = training_batch(model, tiny_processor(), [CONVERSATION]) | {
        "pictures": PictureBatch(tokens=random_tokens(model, 2))
    }
    output = model(**batch)
    return torch.cat((output.scale_losses.flatten(), output.text_loss[None]))


def test_adapters_that_are_off_change_no_bit_and_no_word(engine: ChatEngine) -> None:
    plain = plain_engine()
    for adapter in ((), None):
        assert torch.equal(bits(engine.reply(drawing(adapter))), bits(plain.reply(drawing(None))))
        assert said(engine, adapter) == said(plain, None)
    assert not torch.equal(bits(engine.reply(drawing("robot"))), bits(plain.reply(drawing(None))))
    assert said(engine, "robot") != said(plain, None)


def test_requests_with_different_adapters_do_not_leak_into_one_another(engine: ChatEngine, folders: list[Path]) -> None:
    alone = []
    for folder in folders:
        one = plain_engine()
        alone.append(bits(one.reply(drawing(one.adapters.load(folder)))))
    assert not torch.equal(*alone)
    asked = ("robot", (), "crayon", "robot", None)
    singly = [bits(engine.reply(drawing(adapter))) for adapter in asked]
    together = [bits(turn) for turn in engine.reply_batch([drawing(adapter) for adapter in asked])]
    off = bits(plain_engine().reply(drawing(None)))
    expected = [alone[0], off, alone[1], alone[0], off]
    for turns in (singly, together):
        assert all(torch.equal(one, other) for one, other in zip(turns, expected, strict=True))


def test_a_stream_that_is_left_in_the_middle_leaves_the_adapter_off(engine: ChatEngine) -> None:
    stream = engine.stream(drawing("robot"))
    next(stream)
    stream.close()
    assert torch.equal(bits(engine.reply(drawing(()))), bits(plain_engine().reply(drawing(None))))


def test_waiting_turns_get_the_adapters_that_they_asked_for(engine: ChatEngine) -> None:
    expected = {name: bits(engine.reply(drawing(name))) for name in ("robot", "crayon")}
    found: dict[str, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: bits(engine.reply(drawing(name)))}))
        for name in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_two_adapters_at_once_add_up(engine: ChatEngine) -> None:
    results = [bits(engine.reply(drawing(adapter))) for adapter in ("robot", "crayon", ("robot", "crayon"))]
    assert not torch.equal(results[2], results[0]) and not torch.equal(results[2], results[1])
    again = bits(engine.reply(drawing(("crayon", "robot", "crayon"))))
    assert torch.equal(again, results[2])


def test_a_picture_says_which_adapters_drew_it(engine: ChatEngine) -> None:
    assert engine.reply(drawing("robot")).message.images[0].settings["adapter"] == ("robot",)
    assert "adapter" not in engine.reply(drawing(())).message.images[0].settings


def test_a_merged_adapter_computes_what_the_adapter_beside_the_model_does(engine: ChatEngine) -> None:
    with engine.adapters.switched_on(("robot",)):
        beside = losses(engine.model)
    off = losses(engine.model)
    merged = engine.adapters.merge(("robot",))
    assert not any("lora" in name for name, _ in merged.named_parameters()) and engine.adapters.names == ()
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in tiny_model().named_parameters()}
    assert_close(losses(merged), beside, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(off, beside, atol=1e-2)


def test_what_is_saved_is_what_is_loaded_by_us_and_by_peft(folders: list[Path], tmp_path: Path) -> None:
    adapters = Adapters(tiny_model(), "tiny", BASE)
    adapters.load(folders[0])
    with adapters.switched_on(("robot",)):
        ours = losses(adapters.model)
    save_adapter(
        adapters.model, "adapter_0", lora_config(LoraSettings(rank=4)), AdapterCard(name="again"), tmp_path / "again"
    )
    second = Adapters(tiny_model())
    assert second.load(tmp_path / "again") == "again"
    with second.switched_on(("again",)):
        assert torch.equal(losses(second.model), ours)
    by_peft = PeftModel.from_pretrained(tiny_model(), folders[0]).eval()
    assert_close(losses(by_peft.get_base_model()), ours, atol=1e-5, rtol=1e-5)


def test_an_adapter_of_another_base_is_refused_and_both_are_named(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"made for tiny .weights {BASE}., and this is other .weights feedfeed"):
        Adapters(tiny_model(), "other", "feedfeed").load(folders[0])
    other = make_adapter(tmp_path / "wide", "wide", 0, wide_model(), base_hash=None)
    with pytest.raises(
        ValueError, match=r"made for tiny, does not fit small: language_model.*128 -> 64, here 48 -> 32"
    ):
        Adapters(tiny_model(), "small", BASE).load(other)


def test_an_adapter_for_layers_that_are_not_there_is_refused(folders: list[Path]) -> None:
    text = tiny_model().config.text_config.to_dict() | {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    with pytest.raises(ValueError, match=r"layers\.1\..*there is no such layer here.*more"):
        Adapters(tiny_model(text_config=text), "shallow").load(folders[0])


def test_what_is_no_adapter_is_named(folders: list[Path], tmp_path: Path, engine: ChatEngine) -> None:
    with pytest.raises(FileNotFoundError, match="holds no adapter_config.json"):
        engine.adapters.load(tmp_path)
    with pytest.raises(ValueError, match="called 'robot' already"):
        engine.adapters.load(folders[0])
    with pytest.raises(ValueError, match="no adapter 'rabot' is loaded; there are: 'robot', 'crayon'"):
        engine.stream(drawing("rabot"))
    with pytest.raises(ValueError, match="request 1: no adapter 'rabot'"):
        engine.reply_batch([drawing("robot"), drawing("rabot")])
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folders[0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / CARD).unlink()
    assert read_card(copy).name == "copy" and engine.adapters.load(copy) == "copy"
    (copy / CONFIG).write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(ValueError, match="kind 'IA3'"):
        Adapters(tiny_model()).load(copy)


def test_a_missing_peft_says_what_to_install(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'vargpt\[train\]'"):
        Adapters(tiny_model()).load(folders[0])


def test_an_engine_opened_with_adapters_has_them_on_unless_a_request_says_otherwise(tmp_path: Path) -> None:
    save(tiny_model(), tiny_processor(), tmp_path / "model", torch.float32)
    folder = make_adapter(tmp_path / "robot", "robot", 0, base_hash=None)
    engine = ChatEngine.load(tmp_path / "model", device="cpu", adapters=[folder])
    assert torch.equal(bits(engine.reply(drawing(None))), bits(engine.reply(drawing("robot"))))
    assert torch.equal(bits(engine.reply(drawing(()))), bits(plain_engine().reply(drawing(None))))
    with pytest.raises(ValueError, match="offloading"):
        ChatEngine.load(tmp_path / "model", device="cpu", offload=True, adapters=[folder])


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_layers_are_adapted_too_and_learn(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = quantize(wide_model(), kind).train()
    learning = begin(model, LoraSettings(rank=2))
    assert "language_model.layers.0.mlp.up_proj" in learning.layers
    batch = training_batch(model, tiny_processor(), [CONVERSATION]) | {
        "pictures": PictureBatch(tokens=random_tokens(model, 2))
    }
    model(**batch).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    assert any(bool(gradient.any()) for name, gradient in gradients.items() if "language_model" in name)
    folder = make_adapter(tmp_path / kind, kind, 0, wide_model(), base_hash=None)
    adapters = Adapters(quantize(wide_model(), kind), "small")
    adapters.load(folder)
    off = losses(adapters.model)
    with adapters.switched_on((kind,)):
        assert not torch.allclose(losses(adapters.model), off)
    assert torch.equal(losses(adapters.model), off)
    with pytest.raises(ValueError, match="is quantised"):
        adapters.merge((kind,))


@pytest.mark.parametrize(("projectors", "organs"), [(False, set()), (True, {"projector_in", "projector_out"})])
def test_only_adapters_of_language_model_and_generator_learn(projectors: bool, organs: set[str]) -> None:
    model = tiny_model()
    learning = begin(model, LoraSettings(rank=4, projectors=projectors))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name for name in names)
    assert {name.split(".")[0] for name in names} == {"language_model", "generator"} | organs
    assert len(learning.layers) == 2 * (7 + 7) + 2 * len(organs)
    assert learning.parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert str(learning).startswith(f"{learning.parameters:,} parameters learn beside 14 layers of language_model")
    assert torch.equal(losses(model), losses(tiny_model())), "fresh adapters change nothing"


def test_lora_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="rank >= 1"):
        dataclasses.replace(LoraSettings(), rank=0)
