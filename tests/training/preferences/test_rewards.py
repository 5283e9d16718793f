"""Rewards: what is right scores higher, and networks are read from folders as transformers writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.cases import draw_cases, practice_cases
from data_recipes.storybook.judging.judge import Judge
from data_recipes.storybook.judging.reading import Reading, Thing
from data_recipes.storybook.judging.scoring import credit, meets, reading_of
from data_recipes.storybook.language.drawing_prompts import DrawingPrompt, GroupSpec
from data_recipes.storybook.splits import is_held_out
from training.preferences.rewards import ClipEncoder, aesthetic_reward, linear_layers, reward_named, storybook_reward
from vargpt.testing import tiny_tokenizer

FOX = Thing("fox", None, "medium", (20.0, 32.0), 1.0)
RED_CAR = Thing("car", "red", "medium", (44.0, 32.0), 1.0)
WISH = DrawingPrompt((GroupSpec("fox"), GroupSpec("car", colour="red")), background="beach", relation="left of")


def page(*things: Thing, background: str = "beach") -> Reading:
    return Reading(things, background, "storybook")


def test_a_page_earns_more_the_more_of_what_was_said_it_shows() -> None:
    pages = [
        page(background="plain"),
        page(),
        page(FOX),
        page(FOX, Thing("car", "blue", "medium", (44.0, 32.0), 1.0)),
        page(FOX, RED_CAR, Thing("cat", None, "small", (8.0, 8.0), 1.0)),
        page(FOX, RED_CAR),
    ]
    credits = [credit(one, WISH) for one in pages]
    assert credits == sorted(credits) and len(set(credits)) == len(credits)
    assert credits[-1] == 1.0 and credits[-2] < 1.0


@pytest.mark.parametrize("category", ["counting", "position", "colours", "style"])
def test_full_credit_is_for_pages_that_meet_the_wish_alone(category) -> None:
    cases = draw_cases(category, 12)
    for case in cases:
        for scene in (other.scene for other in cases):
            reading = reading_of(scene)
            assert (credit(reading, case.prompt) == 1.0) == meets(reading, case.prompt, strict=True)


def test_practice_shows_every_category_and_nothing_that_is_held_out() -> None:
    cases = practice_cases(48)
    assert len({case.category for case in cases}) == 8
    assert not any(is_held_out(case.scene) for case in cases)
    assert all(case.prompt.is_met_by(case.scene) for case in cases)
    assert practice_cases(4) == cases[:4] and practice_cases(4, seed=1) != cases[:4]


def test_the_judge_rewards_the_right_page_over_the_wrong_one() -> None:
    right, wrong = practice_cases(2)
    images = [render(right.scene), render(wrong.scene).resize((128, 128))]
    prompts = [right.request] * 2
    scores = storybook_reward(Judge())(prompts, images, case=[right, right], trainer_state=None)
    assert scores[0] == 1.0 and 0 <= scores[1] < 1.0


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")  # a CLIP reads a text at the token that ends it
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 12,
            "eos_token_id": end,
            "bos_token_id": end,
        },
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (24, 24), colour) for colour in ("red", "navy", "white")]


def test_clip_scores_are_cosines_and_the_same_one_by_one(clip_folder) -> None:
    reward, prompts = reward_named(f"clip:{clip_folder}"), ["a fox", "draw a cat and a dog, please", "a " * 40]
    scores = reward(prompts, pictures(), case=None)
    assert len(set(scores)) == 3 and all(-100 <= score <= 100 for score in scores)
    alone = [reward([prompt], [image])[0] for prompt, image in zip(prompts, pictures(), strict=True)]
    assert scores == pytest.approx(alone, abs=1e-3)
    assert reward.__name__ == "clip"
    swapped = reward(prompts[::-1], pictures())
    assert swapped != pytest.approx(scores, abs=1e-3), "the words matter"


def test_the_aesthetic_head_is_applied_layer_by_layer(clip_folder, tmp_path) -> None:
    torch.manual_seed(1)
    layers = [torch.nn.Linear(8, 5), torch.nn.Linear(5, 1)]
    # published heads number their layers with gaps, and 10 comes after 2
    head = {
        f"layers.{10 * i + 2}.{name}": value for i, one in enumerate(layers) for name, value in one.state_dict().items()
    }
    save_file(head, tmp_path / "head.safetensors")
    torch.save(head, tmp_path / "head.pth")
    expected = torch.nn.Sequential(*layers)(ClipEncoder(clip_folder).pictures(pictures()))[:, 0]
    for file in ("head.safetensors", "head.pth"):
        scores = aesthetic_reward(clip_folder, tmp_path / file)([""] * 3, pictures())
        assert_close(torch.tensor(scores), expected.detach())
    assert reward_named(f"aesthetic:{clip_folder}:{tmp_path / 'head.pth'}").__name__ == "aesthetic"


def test_a_head_that_is_none_is_refused(tmp_path) -> None:
    save_file({"weight": torch.zeros(4, 8), "bias": torch.zeros(4)}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="one rating per picture"):
        linear_layers(tmp_path / "wide.safetensors")
    with pytest.raises(FileNotFoundError, match="no aesthetic head"):
        linear_layers(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["", "clip", "clip:", "beauty", "aesthetic:model", "storybook:x"])
def test_unknown_rewards_are_refused_by_name(name) -> None:
    with pytest.raises(ValueError, match="there are storybook, clip:MODEL or aesthetic:MODEL:HEAD"):
        reward_named(name)
