"""GRPO on pictures: what is rewarded is drawn more often, and what cannot be told apart teaches nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from peft import LoraConfig
from torch.testing import assert_close

from tests.loading.test_peft import TARGETS
from training.preferences.feedback import StepSettings
from training.preferences.grpo import GrpoSettings, PictureGRPO, group_advantages, runs, train
from training.preferences.prefer import Wanted
from training.recipes import nano_grpo
from vargpt.loading.models import save
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import Message

PROCESSOR = tiny_processor()
STEPS = StepSettings(
    total_steps=2, learning_rate=1e-2, batch_size=8, warmup_steps=0, schedule="constant", autocast="none", device="cpu"
)
SETTINGS = GrpoSettings(steps=STEPS, group=4, beta=0.0)
WANTED = [Wanted((Message.of("user", text),), {"case": text}) for text in ("draw a fox", "a pine tree at night")]
NUM_TOKENS = 21


def redness(prompts, images, case, **_) -> list[float]:
    assert case == list(prompts), "columns go with their prompts"
    pixels = [image.resize((1, 1)).getpixel((0, 0)) for image in images]
    return [(red - (green + blue) / 2) / 255 for red, green, blue in pixels]


def indifferent(prompts, images, **_) -> list[float]:
    return [0.1] * len(images)


def trainer_of(model, tmp_path, of=SETTINGS, rewards=(redness,), **fields) -> PictureGRPO:
    return PictureGRPO(model, PROCESSOR, WANTED, list(rewards), of.arguments(tmp_path, NUM_TOKENS), **fields)


def generated(trainer: PictureGRPO) -> dict[str, torch.Tensor]:
    """What the trainer draws and makes of a step's prompts: a group of each."""
    trainer.model.train()
    inputs = [{"prompt": one.prompt, "number": number} for number, one in enumerate(WANTED) for _ in range(4)]
    return trainer._generate_and_score_completions(inputs)


def test_the_mean_reward_rises(tmp_path) -> None:
    model = tiny_model()
    settings = dataclasses.replace(SETTINGS, steps=dataclasses.replace(STEPS, total_steps=12, batch_size=16), group=8)
    assert train(model, PROCESSOR, WANTED, [redness], settings, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line]
    assert len(rewards) == 12
    spread = lines[0]["reward_std"] / 16**0.5  # of the mean of sixteen pictures
    assert sum(rewards[-3:]) / 3 > rewards[0] + 3 * spread, rewards
    assert "forward" not in model.__dict__ and not model.training


def test_pictures_of_equal_reward_teach_nothing(tmp_path) -> None:
    assert_close(group_advantages(torch.full((8,), 0.1), 4), torch.zeros(8), atol=1e-3, rtol=0)
    model = tiny_model()
    train(model, PROCESSOR, WANTED, [indifferent], dataclasses.replace(SETTINGS, steps=STEPS), tmp_path)
    for (name, one), (_, other) in zip(model.named_parameters(), tiny_model().named_parameters(), strict=True):
        assert_close(one, other, atol=1e-3, rtol=0, msg=name)


def test_advantages_compare_a_picture_with_its_own_group_only() -> None:
    rewards = torch.tensor([0.0, 1.0, 10.0, 14.0])
    assert_close(group_advantages(rewards, 2, "none"), torch.tensor([-0.5, 0.5, -2.0, 2.0]))
    by_group = group_advantages(rewards, 2)
    assert_close(by_group[:2], by_group[2:], atol=1e-3, rtol=0)
    assert_close(
        group_advantages(rewards, 2, "batch") * rewards.std(), torch.tensor([-0.5, 0.5, -2, 2]), atol=1e-3, rtol=0
    )
    with pytest.raises(ValueError, match="scaled by"):
        group_advantages(rewards, 2, "max")


def test_the_log_probs_of_drawn_pictures_belong_to_what_was_drawn(tmp_path) -> None:
    trainer = trainer_of(tiny_model(), tmp_path, dataclasses.replace(SETTINGS, temperature=0.8, beta=0.1))
    output = generated(trainer)
    texts = [conversation[0].text for conversation in trainer.conversations]
    assert texts == ["draw a fox"] * 4 + ["a pine tree at night"] * 4
    pictures = [conversation[-1].images[0] for conversation in trainer.conversations]
    assert len({part.seed for part in pictures}) == 8
    assert all(part.settings["guidance_scale"] == 1.0 and part.settings["temperature"] == 0.8 for part in pictures)
    assert output["completion_mask"].shape == (8, NUM_TOKENS)
    scored = trainer._in_batches(trainer.model, output["rows"])
    assert_close(scored, output["ref_per_token_logps"], atol=1e-5, rtol=1e-5)
    for row in (1, 6):  # one by one, and in another order
        assert_close(trainer._in_batches(trainer.model, torch.tensor([row]))[0], scored[row], atol=1e-4, rtol=1e-4)
    again = [conversation[-1].images[0].seed for conversation in trainer.draw([WANTED[0]] * 4)]
    assert again == [part.seed for part in pictures[:4]], "a step that is repeated draws the same"


def test_the_first_loss_has_ratios_of_one_and_no_divergence(tmp_path) -> None:
    trainer = trainer_of(tiny_model(), tmp_path, dataclasses.replace(SETTINGS, beta=0.5, iterations=2))
    output = generated(trainer)
    assert "old_per_token_logps" in output, "the second pass needs the first one's"
    shuffled = torch.randperm(8)
    inputs = {name: value[shuffled] if value.ndim else value for name, value in output.items()}
    trainer.current_gradient_accumulation_steps = 1  # what training would have set
    loss = trainer.compute_loss(trainer.model, inputs)
    assert trainer._metrics["train"]["kl"][-1] == pytest.approx(0, abs=1e-6)
    assert trainer._metrics["train"]["clip_ratio/region_mean"][-1] == 0
    assert loss.item() == pytest.approx(-output["advantages"].mean().item(), abs=1e-4)
    assert output["advantages"].abs().max() > 0.1


def test_adapters_that_are_off_are_the_reference(tmp_path) -> None:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False)
    trainer = trainer_of(tiny_model(), tmp_path, dataclasses.replace(SETTINGS, beta=0.1), peft_config=lora)
    output = generated(trainer)
    assert trainer.ref_model is None
    plain = trainer_of(tiny_model(), tmp_path)
    plain.conversations = trainer.conversations
    expected = plain._in_batches(plain.model, output["rows"])
    assert_close(output["ref_per_token_logps"], expected.detach(), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(trainer._in_batches(trainer.model, output["rows"]), expected, atol=1e-2)


def test_neighbours_of_one_prompt_are_drawn_together() -> None:
    fox, tree = WANTED
    grouped = [len(group) for group in runs([fox] * 5 + [tree] * 2 + [fox], longest=4)]
    assert grouped == [4, 1, 2, 1]


def test_numbers_that_do_not_fit_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="no whole groups of 3"):
        train(tiny_model(), PROCESSOR, WANTED, [redness], dataclasses.replace(SETTINGS, group=3), tmp_path)
    with pytest.raises(ValueError, match="prompts and at least one reward"):
        train(tiny_model(), PROCESSOR, WANTED, [], SETTINGS, tmp_path)
    broken = trainer_of(tiny_model(), tmp_path, rewards=[lambda prompts, images, **_: [float("nan")] * len(images)])
    with pytest.raises(ValueError, match="rewards are finite"):
        generated(broken)


def test_the_recipe_learns_from_the_storybooks_judge(tmp_path) -> None:
    save(tiny_model(), PROCESSOR, tmp_path / "tiny", dtype=torch.float32)
    changes = "--group 2 --steps.total-steps 1 --steps.batch-size 4 --steps.accumulation 1".split()
    changes += ["--steps.autocast", "none", "--steps.device", "cpu"]
    arguments = ["--model", str(tmp_path / "tiny"), "--storybook", "4", "--reward", "storybook"]
    nano_grpo.main([*arguments, "--out", str(tmp_path / "out"), "--lora", "4", *changes])
    assert (tmp_path / "out" / "adapter" / "adapter.json").is_file()
    assert load(tmp_path / "out" / "model", device="cpu")[0].config.model_type == "vargpt"
    line = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 <= line["rewards/storybook/mean"] <= 1
    with pytest.raises(SystemExit):
        nano_grpo.main(["--prompts", "some.txt", "--reward", "storybook"])
