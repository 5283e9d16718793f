"""The next-scale generator without any language model around it: causal, cached = at once, guidance and nulls exact."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from vargpt.assistant.model import VARGPT
from vargpt.config import NextScaleConfig
from vargpt.generators import bitwise
from vargpt.generators.next_scale import NextScaleGenerator
from vargpt.generators.parts import NormalizedCrossAttention
from vargpt.sampling import seeded
from vargpt.testing import tiny_config
from vargpt.tokenizers.bsq import BsqTokenizer
from vargpt.types import Branch, ImageContext, ImageLayout, ImageSampling, ImageTokens

CONFIG = tiny_config()
SQUARE, WIDE = CONFIG.layout(), CONFIG.layout((16, 32))
GREEDY = ImageSampling(guidance_scale=1.0, temperature=0.0)
CODEC = BsqTokenizer(CONFIG.image_tokenizer_config).eval()
MEMORY = CONFIG.generator_config.memory_size


def make_generator() -> NextScaleGenerator:
    torch.manual_seed(7)
    generator = NextScaleGenerator(CONFIG.generator_config)
    for parameter in generator.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    return generator.eval()


@pytest.fixture(scope="module")
def generator() -> NextScaleGenerator:
    return make_generator()


def random_tokens(layout: ImageLayout = SQUARE, num_images: int = 2, seed: int = 0) -> ImageTokens:
    rng = torch.Generator().manual_seed(seed)
    return ImageTokens.from_flat(layout, torch.rand(num_images, layout.num_tokens, 8, generator=rng) < 0.5)


def memory_branch(num_images: int = 2, length: int = 5, seed: int = 3) -> Branch:
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_images, length, generator=rng) < 0.7
    mask[:, 0] = True
    return Branch(torch.randn(num_images, length, MEMORY, generator=rng), mask)


def guided_context(layout: ImageLayout, num_images: int = 2) -> ImageContext:
    """Three branches of different lengths, one with a source for the first picture only, one null; with slots."""
    rng = torch.Generator().manual_seed(4)
    source = CODEC.latents(random_tokens(layout, num_images, seed=8))
    has_source = torch.arange(num_images) == 0
    branches = (
        dataclasses.replace(memory_branch(num_images, 6), source=source, source_mask=has_source),
        memory_branch(num_images, 3, seed=5),
        Branch(None),
    )
    return ImageContext(branches, torch.randn(3, num_images, layout.num_tokens, MEMORY, generator=rng))


def stepping(context: ImageContext, layout: ImageLayout) -> ImageContext:
    """The same context as inference hands it over: the slots of one scale at a time."""
    slots, offsets = context.slots, layout.offsets
    if slots is None:
        return context
    return ImageContext(context.branches, step=lambda _, k: slots[:, :, offsets[k] : offsets[k + 1]])


def draw(generator, context, layout=SQUARE, sampling=GREEDY, seeds=(0, 1), given=None) -> ImageTokens:
    return list(generator.generate(context, layout, sampling, seeded(seeds), CODEC, given))[-1].tokens


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_a_finer_scale_never_moves_a_coarser_logit(generator, layout) -> None:
    context = guided_context(layout)
    tokens, before = random_tokens(layout), None
    before = generator.logits(context, tokens, CODEC)
    for k in range(layout.num_scales):
        grids = tuple(grid if j < k else ~grid for j, grid in enumerate(tokens.grids))
        after = generator.logits(context, ImageTokens(layout, grids), CODEC)
        seen = layout.offsets[k + 1]
        assert torch.equal(after[:, :seen], before[:, :seen]), "scale k is predicted from the scales before it"
        assert k == layout.num_scales - 1 or not torch.allclose(after[:, seen:], before[:, seen:])


def test_what_the_language_model_says_at_a_finer_slot_never_moves_a_coarser_logit(generator) -> None:
    context, tokens = guided_context(SQUARE), random_tokens()
    before = generator.logits(context, tokens, CODEC)
    for start in SQUARE.offsets[1:-1]:
        slots = context.slots.clone()
        slots[:, :, start:] += 1.0
        after = generator.logits(dataclasses.replace(context, slots=slots), tokens, CODEC)
        assert torch.equal(after[:, :start], before[:, :start])
        assert not torch.allclose(after[:, start:], before[:, start:])


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
@pytest.mark.parametrize("with_slots", [True, False])
def test_drawing_scale_by_scale_gives_the_logits_of_all_scales_at_once(layout, with_slots, monkeypatch) -> None:
    generator, context = make_generator(), guided_context(layout)
    if not with_slots:
        context = dataclasses.replace(context, slots=None)
    said: list[Tensor] = []
    head = generator.bit_logits
    monkeypatch.setattr(generator, "bit_logits", lambda *inputs: said.append(head(*inputs)) or said[-1])
    sampling = ImageSampling(guidance_scale=2.0, image_guidance_scale=1.5, temperature=1.0)
    drawn = draw(generator, stepping(context, layout), layout, sampling)
    monkeypatch.undo()
    assert drawn.is_complete and drawn.flat().shape == (2, layout.num_tokens, 8)
    assert_close(torch.cat(said, dim=1), generator.logits(context, drawn, CODEC), atol=1e-5, rtol=1e-4)


def test_every_step_is_a_preview_with_one_more_scale(generator) -> None:
    progress = list(generator.generate(ImageContext((Branch(None),)), SQUARE, GREEDY, seeded([0]), CODEC))
    assert [len(step.tokens.grids) for step in progress] == [1, 2, 3]
    assert [(step.step, step.total) for step in progress] == [(1, 3), (2, 3), (3, 3)]
    assert [step.tokens.is_complete for step in progress] == [False, False, True]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guidance_of_one_draws_what_the_conditional_branch_alone_draws(generator, temperature) -> None:
    conditional = memory_branch()
    sampling = dataclasses.replace(GREEDY, temperature=temperature)
    alone = draw(generator, ImageContext((conditional,)), sampling=sampling)
    guided = draw(generator, ImageContext((conditional, Branch(None))), sampling=sampling)
    assert torch.equal(alone.flat(), guided.flat())
    stronger = dataclasses.replace(sampling, guidance_scale=5.0)
    assert not torch.equal(
        draw(generator, ImageContext((conditional, Branch(None))), sampling=stronger).flat(), alone.flat()
    )


def test_settings_per_scale_are_used_at_their_scale(generator) -> None:
    context = ImageContext((memory_branch(), Branch(None)))
    plain = draw(generator, context)
    late = draw(generator, context, sampling=ImageSampling(guidance_scale=(1.0, 1.0, 9.0), temperature=0.0))
    assert all(torch.equal(late.grids[k], plain.grids[k]) for k in range(2))
    assert not torch.equal(late.grids[2], plain.grids[2])
    warm = ImageSampling(guidance_scale=1.0, temperature=(0.0, 5.0))
    one, other = draw(generator, context, sampling=warm), draw(generator, context, sampling=warm, seeds=(8, 9))
    assert torch.equal(one.grids[0], other.grids[0]), "the first scale is greedy"
    assert not torch.equal(one.grids[1], other.grids[1]) and not torch.equal(one.grids[2], other.grids[2])
    only_likeliest = ImageSampling(guidance_scale=1.0, temperature=1.0, top_k=1)
    assert torch.equal(draw(generator, context, sampling=only_likeliest).flat(), plain.flat())


def test_given_scales_are_kept_and_the_others_follow_from_them(generator) -> None:
    context = ImageContext((memory_branch(),))
    greedy = draw(generator, context)
    for k in range(1, SQUARE.num_scales + 1):
        assert torch.equal(draw(generator, context, given=greedy.prefix(k)).flat(), greedy.flat())
    given = random_tokens(seed=6).prefix(2)
    drawn = draw(generator, context, given=given)
    assert all(torch.equal(drawn.grids[k], given.grids[k]) for k in range(2))
    assert not torch.equal(drawn.grids[2], greedy.grids[2])


@pytest.mark.parametrize("given", [random_tokens(WIDE).prefix(1), random_tokens(num_images=3).prefix(1)])
def test_given_scales_of_another_layout_or_number_are_refused(generator, given) -> None:
    with pytest.raises(ValueError, match="given scales"):
        draw(generator, ImageContext((memory_branch(),)), given=given)


def test_a_picture_is_the_same_alone_and_in_a_batch_with_longer_memories(generator) -> None:
    together = dataclasses.replace(memory_branch(3, 6), memory_mask=torch.arange(6) < torch.tensor([[6], [2], [4]]))
    tokens = random_tokens(num_images=3)
    sampling = ImageSampling(guidance_scale=3.0, temperature=1.0)
    logits = generator.logits(ImageContext((together,)), tokens, CODEC)
    drawn = draw(generator, ImageContext((together, Branch(None))), SQUARE, sampling, seeds=(4, 5, 6))
    for row, length in enumerate((6, 2, 4)):
        alone = Branch(together.memory[row : row + 1, :length])
        one = generator.logits(ImageContext((alone,)), tokens.select([row]), CODEC)
        assert_close(logits[row : row + 1], one, atol=1e-5, rtol=1e-4)
        redrawn = draw(generator, ImageContext((alone, Branch(None))), SQUARE, sampling, seeds=(4 + row,))
        assert torch.equal(redrawn.flat(), drawn.select([row]).flat())


def test_a_row_gets_the_learned_null_if_and_only_if_it_may_attend_nothing() -> None:
    generator, tokens = make_generator(), random_tokens()
    nothing = dataclasses.replace(memory_branch(), memory_mask=torch.tensor([[True] * 5, [False] * 5]))
    context = ImageContext((nothing,))
    before = generator.logits(context, tokens, CODEC)
    null = generator.logits(ImageContext((Branch(None),)), tokens, CODEC)
    assert_close(before[1], null[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before[0], null[0])
    generator.null_memory.data += 1.0
    after = generator.logits(context, tokens, CODEC)
    assert torch.equal(after[0], before[0]) and not torch.allclose(after[1], before[1])


def test_hidden_memory_positions_change_nothing(generator) -> None:
    branch, tokens = memory_branch(), random_tokens()
    noisy = dataclasses.replace(branch, memory=torch.where(branch.memory_mask[..., None], branch.memory, 50.0))
    before, after = (generator.logits(ImageContext((one,)), tokens, CODEC) for one in (branch, noisy))
    assert torch.equal(before, after)


def test_a_picture_without_a_source_is_untouched_by_the_sources_of_others(generator) -> None:
    tokens, branch = random_tokens(), memory_branch()
    source = CODEC.latents(random_tokens(seed=8))
    mixed = dataclasses.replace(branch, source=source, source_mask=torch.tensor([True, False]))
    plain, edited = (generator.logits(ImageContext((one,)), tokens, CODEC) for one in (branch, mixed))
    assert_close(edited[1], plain[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(edited[0], plain[0])
    everyone = generator.logits(ImageContext((dataclasses.replace(branch, source=source),)), tokens, CODEC)
    assert_close(everyone[0], edited[0], atol=1e-5, rtol=1e-4)


def test_an_open_gate_repeats_the_source_bit_for_bit_and_a_closed_one_does_not() -> None:
    """With the gate wide open, the greedy drawing is the source itself, even where the network wants something else."""
    generator, source = make_generator(), random_tokens(seed=8)
    branch = dataclasses.replace(memory_branch(), source=CODEC.latents(source), source_mask=torch.tensor([True, False]))
    gate = generator.source_copy.gate
    gate.weight.data.zero_()
    agreement = {}
    for opening in (0.0, 100.0):
        gate.bias.data.fill_(opening)
        drawn = draw(generator, ImageContext((branch,)))
        agreement[opening] = (drawn.grids[-1] == source.grids[-1]).float().mean((1, 2, 3))
    assert agreement[0.0][0] < 0.8
    assert_close(agreement[0.0][1], agreement[100.0][1])  # the second picture has no source
    error = (CODEC.latents(drawn) - CODEC.latents(source))[0].abs().mean()
    assert float(error) < 0.25 * float(CODEC.latents(source)[0].abs().mean())


def test_a_file_of_a_form_that_is_no_more_is_refused_and_one_of_ours_is_read() -> None:
    with pytest.raises(ValueError, match="NextScaleConfig has no such form: {'source_copy': False}"):
        NextScaleConfig(source_memory=True, source_copy=False)
    assert not hasattr(NextScaleConfig(source_memory=True, source_copy=True), "source_copy")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [3.0, 3.0, 3.0]), ("linear", [1.0, 2.0, 3.0]), ("cosine", [1.0, 2.0, 3.0])],
)
def test_guidance_follows_its_schedule(schedule, expected, monkeypatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(bitwise, "guide", lambda rows, scale, _: seen.append(scale) or rows[0])
    context = ImageContext((memory_branch(), Branch(None)))
    draw(make_generator(), context, sampling=ImageSampling(guidance_scale=3.0, guidance_schedule=schedule))
    assert seen == pytest.approx(expected)


def test_outside_its_interval_nothing_is_guided(monkeypatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(bitwise, "guide", lambda rows, scale, _: seen.append(scale) or rows[0])
    context = ImageContext((memory_branch(), Branch(None)))
    draw(make_generator(), context, sampling=ImageSampling(guidance_scale=3.0, guidance_interval=(0.5, 1.0)))
    assert seen == [1.0, 3.0, 3.0]


def test_settings_of_other_kinds_of_generators_are_refused(generator) -> None:
    generator.check_sampling(ImageSampling(image_guidance_scale=1.5, guidance_schedule="linear"))
    for wrong in ({"num_steps": 8}, {"diffusion_steps": 100}, {"smooth": True}):
        with pytest.raises(ValueError, match=f"cannot use {next(iter(wrong))}; it takes guidance_scale"):
            generator.check_sampling(ImageSampling(**wrong))
    with pytest.raises(ValueError, match="guidance_interval holds two shares"):
        generator.check_sampling(ImageSampling(guidance_interval=(0.9, 0.1)))


def test_losses_are_the_negative_log_probabilities_of_the_bits(generator) -> None:
    context, tokens, targets = ImageContext((memory_branch(),)), random_tokens(), random_tokens(seed=2)
    logits = generator.logits(context, tokens, CODEC)
    by_hand = F.cross_entropy(logits.flatten(0, 2), targets.flat().long().flatten(), reduction="none")
    by_hand = by_hand.view(2, SQUARE.num_tokens, 8)
    log_probs = generator.log_probs(context, tokens, CODEC, targets)
    assert_close(log_probs, -by_hand.sum(-1), atol=1e-5, rtol=1e-5)
    sizes = [h * w for h, w in SQUARE.scales]
    expected = torch.stack([-part.mean(1) / 8 for part in log_probs.split(sizes, dim=1)], dim=1)
    assert_close(generator.loss(context, tokens, CODEC, targets), expected, atol=1e-6, rtol=1e-5)
    same = generator.loss(context, tokens, CODEC, tokens)
    assert torch.equal(generator.loss(context, tokens, CODEC), same)


def test_losses_are_refused_for_several_branches(generator) -> None:
    with pytest.raises(ValueError, match="one branch, got 2"):
        generator.loss(ImageContext((memory_branch(), Branch(None))), random_tokens(), CODEC)


def test_slot_inputs_are_those_that_drawing_computes_scale_by_scale(generator) -> None:
    tokens = random_tokens()
    pieces = [generator.scale_inputs(tokens.prefix(max(k, 1)), k, CODEC) for k in range(SQUARE.num_scales)]
    assert_close(generator.slot_inputs(tokens, CODEC, Branch(None)), torch.cat(pieces, dim=1))


def test_a_fresh_generator_hears_what_has_been_drawn_beside_what_the_language_model_says() -> None:
    """Both have an input of norm one per channel at best; codes have a norm of one in all, and were once drowned."""
    generator = VARGPT(CONFIG).generator.requires_grad_(False)
    slots = generator.slot_proj(torch.randn(2, SQUARE.num_tokens, MEMORY))
    finer = generator.slot_inputs(random_tokens(), CODEC, Branch(None))[:, SQUARE.offsets[1] :]
    levels = generator.level_embed.weight[: SQUARE.num_scales]
    assert float(finer.std()) > float(slots.std())
    assert float(levels.std()) > float(slots.std())


def test_a_fresh_cross_attention_already_prefers_some_memory() -> None:
    """Uniform attention tells the same to every token whatever the words are, and learns very slowly."""
    torch.manual_seed(0)
    attention = NormalizedCrossAttention(64, 64, 4).requires_grad_(False)
    x, memory = torch.randn(1, 9, 64), torch.randn(1, 30, 64)
    mask = torch.ones(1, 1, 1, 30, dtype=torch.bool)
    base = attention(x, memory, mask, None)
    attention.log_scale.data.fill_(-10.0)  # uniform
    uniform = attention(x, memory, mask, None)
    assert float((base - uniform).norm() / uniform.norm()) > 1.0


def test_it_overfits_one_batch_and_then_draws_it() -> None:
    generator, context, tokens = make_generator(), ImageContext((memory_branch(),)), random_tokens()
    optimizer = torch.optim.Adam(generator.parameters(), lr=4e-3)
    for _ in range(160):
        loss = generator.loss(context, tokens, CODEC).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    assert torch.equal(draw(generator, context).flat(), tokens.flat())
