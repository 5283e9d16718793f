"""Every named size builds, without memory, with the parameters it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from vargpt.assistant.model import VARGPT
from vargpt.assistant.special_tokens import SpecialTokens
from vargpt.config import VargptConfig
from vargpt.presets import nano, vargpt_v1_1
from vargpt.published.families import load
from vargpt.published.vargpt_v1_1 import config_from_published
from vargpt.testing import tiny_processor

VOCABULARY = 2048
OF_A_FILE = {"_name_or_path", "architectures", "dtype"}  # what transformers notes when a config is saved or loaded


@pytest.fixture(scope="module")
def config() -> VargptConfig:
    return nano(tiny_processor().special, VOCABULARY)


@pytest.fixture(scope="module")
def model(config) -> VARGPT:
    with torch.device("meta"):
        return AutoModel.from_config(config)


def test_nano_has_its_documented_parameters(config, model) -> None:
    """About 9M, as its docstring says; a change of size changes this number and the docstring together."""
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.lm_head.weight.shape == (VOCABULARY, config.text_config.hidden_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == 9_474_593


def settings(section: dict[str, Any]) -> dict[str, Any]:
    return {
        name: settings(value) if isinstance(value, dict) else value
        for name, value in section.items()
        if name not in OF_A_FILE
    }


def test_the_shipped_checkpoint_is_the_preset() -> None:
    """Training nano again gives the model that ships. Only the weight of the image loss belongs to the recipe."""
    model, processor = load(device="cpu")
    shipped = settings(model.config.to_dict())
    stated = settings(nano(processor.special, len(processor.tokenizer)).to_dict())
    assert len(processor.tokenizer) == VOCABULARY
    assert shipped | {"image_loss_weight": None} == stated | {"image_loss_weight": None}
    assert sum(parameter.numel() for parameter in model.parameters()) == 9_474_593


def test_nano_fits_into_32_mebibytes_of_bfloat16(model) -> None:
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 32 * 2**20


def test_the_organs_of_nano_fit_together(config) -> None:
    layout = config.layout()
    tokenizer, drawing, vision = config.image_tokenizer_config, config.generator_config, config.vision_config
    assert layout.num_tokens == 130 and (layout.height, layout.width) == (64, 64)
    assert layout.final_scale[0] * tokenizer.downsample_factor == layout.height
    assert drawing.num_bits == drawing.code_dim == tokenizer.num_bits == 32
    assert drawing.max_scales >= layout.num_scales
    assert vision.hidden_size == config.text_config.hidden_size
    assert (layout.width // (vision.patch_size * vision.spatial_merge_size)) ** 2 == 64, "patches to see a picture"


def test_nano_names_the_control_tokens_of_its_tokenizer(config) -> None:
    special: SpecialTokens = tiny_processor().special
    tiny_processor().check_model(config)
    assert (config.eos_token_id, config.pad_token_id) == (special.im_end, special.end_of_text)


def test_the_published_size_is_what_its_own_config_says() -> None:
    entry = json.loads((Path(__file__).parent / "parity/manifests/manifest_vargpt_v1_1_7b_2b.json").read_text())
    published, ours = config_from_published(entry["config"]["llm"]).to_dict(), vargpt_v1_1().to_dict()
    assert ours == published
    with torch.device("meta"):
        model = AutoModel.from_config(vargpt_v1_1())
    assert 10.6e9 < sum(parameter.numel() for parameter in model.parameters()) < 10.7e9
