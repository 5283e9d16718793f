"""The benchmark of published architectures: equal bits, counted work, and clear mistakes. Nothing here is timed."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vargpt.assistant.conversation_state import select_cache
from vargpt.benchmarks import architecture_speed, machine_limit
from vargpt.benchmarks.architecture_speed import GENERATOR, LANGUAGE, PLAIN, compare, measure_config
from vargpt.benchmarks.architectures import ARCHITECTURES, PROMPT_LENGTH, Subject, infinity, named, vargpt
from vargpt.benchmarks.machine_limit import Machine, Work, decoder_work, generator_work, language_work, measure_machine
from vargpt.benchmarks.plain_flow import PlainBranch, one_row, plain_decode, plain_decoder, plain_draw, plain_slots
from vargpt.commands import cli
from vargpt.types import ImageLayout

DECODER = {
    "hidden_size": 128, "num_layers": 2, "num_heads": 4, "num_bits": 8, "code_dim": 8, "memory_size": 128,
    "null_length": 64,
}  # fmt: skip
AUTOENCODER = {"num_bits": 8, "base_channels": 32, "channel_multipliers": [1, 1, 1, 1, 2], "num_res_blocks": 1}
TEXT = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rope_scaling": {"mrope_section": [4, 6, 6]},
}  # fmt: skip
CONFIGS = {
    "infinity": (infinity({**DECODER, "memory_size": 256}, AUTOENCODER), False),
    "vargpt": (vargpt(TEXT, DECODER, AUTOENCODER), True),
}
SMALL = ImageLayout(96, 96, ((1, 1), (2, 2), (4, 4), (6, 6)), (64, 64))


@pytest.fixture(params=CONFIGS)
def kind(request) -> str:
    return request.param


def subject_of(kind: str) -> Subject:
    config, talks = CONFIGS[kind]
    return Subject.of(config, talks, SMALL)


@pytest.fixture
def quick_machine(monkeypatch) -> None:
    for name, value in {"SIDE": 64, "ROWS": 8, "BANDWIDTH_BYTES": 2**16, "REPEATS": 1}.items():
        monkeypatch.setattr(machine_limit, name, value)


def test_the_plain_flow_draws_the_same_bits(kind: str) -> None:
    subject = subject_of(kind)
    plain, ours = list(plain_draw(subject)), list(subject.draw())
    assert len(plain) == len(ours) == SMALL.num_scales
    assert torch.equal(plain[-1].tokens.flat(), ours[-1].tokens.flat())
    assert 0.1 < float(ours[-1].tokens.flat().float().mean()) < 0.9
    assert compare(subject, tuple(plain)).share == 1


def test_packed_weights_draw_the_same_bits(kind: str) -> None:
    subject = subject_of(kind)
    plain = tuple(plain_draw(subject))
    subject.pack(torch.float32)
    equality = compare(subject, plain)
    assert equality.widest_margin < architecture_speed.TIE and equality.different <= 1


@pytest.mark.slow
def test_compiled_blocks_draw_the_same_bits(kind: str) -> None:
    subject = subject_of(kind)
    plain = tuple(plain_draw(subject))
    assert compare(architecture_speed.compile_blocks(subject), plain).widest_margin < architecture_speed.TIE


def test_in_bfloat16_nearly_all_bits_stay(kind: str) -> None:
    subject = subject_of(kind)
    plain = tuple(plain_draw(subject))
    subject.pack(torch.bfloat16)
    equality = compare(subject, plain)
    assert equality.share > 0.95 and equality.widest_margin < 0.2


def test_the_plain_decoder_makes_the_same_picture() -> None:
    subject = subject_of("infinity")
    tokens = list(subject.draw())[-1].tokens
    decoder, latents = plain_decoder(subject.image_tokenizer.decoder), subject.image_tokenizer.latents(tokens)
    with torch.no_grad():
        assert_close(subject.image_tokenizer.decode(tokens), plain_decode(decoder, latents), atol=1e-4, rtol=0)


def counted(work) -> int:
    """Operations that PyTorch counts, with attention taken apart into its two products."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_the_work_of_the_generator_is_what_pytorch_counts() -> None:
    subject, config = subject_of("infinity"), CONFIGS["infinity"][0].generator_config
    expected = sum(
        generator_work(config, SMALL, k, PROMPT_LENGTH, projected=True).flops for k in range(SMALL.num_scales)
    )
    width, states = config.hidden_size, 2 * PROMPT_LENGTH
    pool = 2 * states * config.memory_size * 2 * width + 2 * 2 * width * width + 4 * states * width
    assert counted(lambda: list(subject.draw())) == expected + pool


def test_the_work_of_the_language_model_is_what_pytorch_counts() -> None:
    subject, config = subject_of("vargpt"), CONFIGS["vargpt"][0]
    inputs = torch.randn(1, SMALL.offsets[1], config.generator_config.hidden_size)
    memory = one_row(subject.generator.memory(subject.branches, 1), 0)
    full = PlainBranch(memory, text_cache=select_cache(subject.state.cache, torch.tensor([0])))
    expected = language_work(config, SMALL, 0, PROMPT_LENGTH + 1).flops
    assert counted(lambda: [plain_slots(subject, one, inputs, 0) for one in (full, PlainBranch(memory))]) == expected


def test_the_work_of_the_decoder_is_what_pytorch_counts() -> None:
    subject, config = subject_of("infinity"), CONFIGS["infinity"][0].image_tokenizer_config
    decoder = plain_decoder(subject.image_tokenizer.decoder)
    latents = torch.randn(1, *SMALL.final_scale, config.num_bits)
    plain = decoder_work(config, SMALL, doubled=True).flops
    assert counted(lambda: plain_decode(decoder, latents)) == plain
    assert plain > decoder_work(config, SMALL).flops


def test_limits_are_positive_and_the_slower_of_computing_and_reading(quick_machine) -> None:
    machine = measure_machine(torch.float32)
    assert min(machine.flops_per_s, machine.bytes_per_s) > 0 and machine.bytes_per_value == 4
    assert 0 < machine.matmul_flops_per_s <= machine.flops_per_s
    machine = Machine(10.0, 4.0, 2, 5.0)
    assert machine.with_matmul().seconds(Work(100, 1)) == 20
    assert machine.seconds(Work(100, 1)) == 10 and machine.seconds(Work(1, 100)) == 50


def test_every_variant_has_all_its_numbers(kind: str, quick_machine) -> None:
    config, talks = CONFIGS[kind]
    speed = measure_config(config, talks, SMALL, "bf16", runs=1)
    assert speed.variants[0].name == PLAIN and len(speed.variants) == 4
    for variant in speed.variants:
        assert all(len(values) == SMALL.num_scales for values in (variant.scale_seconds[GENERATOR],))
        assert variant.limit(GENERATOR) > 0 and (variant.limit(LANGUAGE) > 0) == talks
        assert variant.picture_s > variant.transformers_s > 0
    json.dumps(speed.as_json())


def test_two_flows_that_differ_by_more_than_rounding_are_an_error(kind: str) -> None:
    subject = subject_of(kind)
    plain = tuple(plain_draw(subject))
    with torch.no_grad():
        subject.generator.head.bias += 1e-1 * torch.randn_like(subject.generator.head.bias)
    with pytest.raises(RuntimeError, match="bits differ"):
        architecture_speed.check_equality(compare(subject, plain))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_layout_of_256_pixels(name: str) -> None:
    config, _ = named(name)
    layout = config.layout((256, 256))
    assert (layout.num_scales, layout.num_tokens, layout.position_grid) == (7, 521, (64, 64))


def test_the_command_prints_both_tables_and_writes_numbers(home, monkeypatch, capsys, quick_machine) -> None:
    monkeypatch.setattr(architecture_speed, "named", lambda name: CONFIGS["infinity"])
    CONFIGS["infinity"][0].scale_schedules["96x96"] = [list(scale) for scale in SMALL.scales]
    with pytest.raises(SystemExit) as left:
        cli.app(["bench", "--architecture", "infinity-125m", "--size", "96x96", "--runs", "1", "--device", "cpu",
                 "--out", "speed.json"])  # fmt: skip
    assert left.value.code == 0
    assert "equal bits" in capsys.readouterr().out
    assert json.loads((home / "speed.json").read_text())["architecture"] == "infinity-125m"


MISTAKES = {
    "name": (["--architecture", "infinity-125"], "did you mean infinity-125m?"),
    "size": (["--architecture", "infinity-125m", "--size", "100x100"], "draws no 100x100 pictures"),
    "shape": (["--architecture", "infinity-125m", "--size", "big"], "WIDTHxHEIGHT"),
    "dtype": (["--architecture", "infinity-125m", "--dtype", "fp8"], "--dtype is one of fp32, bf16"),
    "runs": (["--architecture", "infinity-125m", "--runs", "0"], "at least one run"),
    "model": (["--architecture", "infinity-125m", "--model", "x"], "leave --model out"),
    "no architecture": (["--dtype", "bf16"], "go with --architecture"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name: str, home, capsys) -> None:
    arguments, problem = MISTAKES[name]
    with pytest.raises(SystemExit) as left:
        cli.app(["bench", "--device", "cpu", *arguments])
    assert left.value.code == 2 and problem in capsys.readouterr().err


def test_too_large_an_architecture_says_what_it_needs(monkeypatch) -> None:
    monkeypatch.setattr(architecture_speed, "num_parameters", lambda config, talks: 10**15)
    with pytest.raises(ValueError, match="choose a smaller architecture"):
        architecture_speed.check_memory(*CONFIGS["infinity"], "cpu")


def test_gradients_still_flow_through_the_decoder() -> None:
    """Decoding works in place; training must not."""
    subject = subject_of("infinity")
    latents = torch.randn(1, 8, 6, 6, requires_grad=True)
    with torch.enable_grad():
        subject.image_tokenizer.decoder(latents).sum().backward()
    assert latents.grad is not None and float(latents.grad.abs().sum()) > 0
