"""The configuration: saved and loaded unchanged, and sizes that a model cannot draw are refused."""

from __future__ import annotations

import json

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, PreTrainedConfig

from vargpt.config import (
    NANO_SCHEDULES,
    BsqTokenizerConfig,
    InfinityConfig,
    InfinityTokenizerConfig,
    NextScaleConfig,
    VargptConfig,
)
from vargpt.testing import tiny_config


def test_custom_values_of_every_organ_survive_saving_and_loading(tmp_path) -> None:
    config = tiny_config(image_loss_weight=2.5, tie_word_embeddings=False, scale_schedules={"8x16": [[1, 2]]})
    config.default_size = "8x16"
    config.generator_config.rope_grid = 48
    config.image_tokenizer_config.patch_size = 2
    config.text_config.rms_norm_eps = 1e-4
    config.vision_config.depth = 3
    config.save_pretrained(tmp_path)
    for loaded in (VargptConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is VargptConfig
        assert (loaded.image_loss_weight, loaded.tie_word_embeddings) == (2.5, False)
        assert loaded.layout().scales == ((1, 2),)
        assert loaded.generator_config.rope_grid == 48
        assert loaded.image_tokenizer_config.patch_size == 2
        assert loaded.text_config.rms_norm_eps == 1e-4
        assert loaded.text_config.rope_parameters == config.text_config.rope_parameters
        assert loaded.vision_config.depth == 3
        assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()


def test_what_is_saved_names_every_organ(tmp_path) -> None:
    tiny_config().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert set(VargptConfig.sub_configs) <= set(saved)
    assert saved["model_type"] == "vargpt"


def test_a_config_without_arguments_has_organs_that_fit_together() -> None:
    config = VargptConfig()
    assert isinstance(config.generator_config, NextScaleConfig)
    assert config.generator_config.code_dim == config.image_tokenizer_config.num_bits
    layout = config.layout()
    assert layout.final_scale[0] * config.image_tokenizer_config.downsample_factor == layout.height


def test_two_configs_never_share_a_schedule() -> None:
    first, second = VargptConfig(), VargptConfig()
    first.scale_schedules["64x64"].append([16, 16])
    assert second.layout().final_scale == (8, 8)
    assert NANO_SCHEDULES["64x64"][-1] == [8, 8]


def test_every_nano_schedule_grows_and_ends_at_eight_pixels_a_cell() -> None:
    config = VargptConfig()
    for size in NANO_SCHEDULES:
        height, width = (int(side) for side in size.split("x"))
        layout = config.layout((height, width))
        assert layout.final_scale == (height // 8, width // 8)
        areas = [h * w for h, w in layout.scales]
        assert areas == sorted(areas) and layout.scales[0] == (1, 1)


def test_64_pixels_are_a_prefix_of_128_pixels() -> None:
    config = VargptConfig()
    small, large = config.layout((64, 64)), config.layout((128, 128))
    assert large.scales[: small.num_scales] == small.scales


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (0, 0), (-64, 64)])
def test_a_size_without_a_schedule_is_refused_with_the_sizes_there_are(size) -> None:
    with pytest.raises(ValueError, match=f"no {size[0]}x{size[1]} pictures.*128x128.*48x64"):
        VargptConfig().layout(size)


@pytest.mark.parametrize("num_bits", [0, 7, 65])
def test_code_widths_outside_8_to_64_are_refused(num_bits) -> None:
    with pytest.raises(StrictDataclassClassValidationError, match="num_bits must lie between 8 and 64"):
        BsqTokenizerConfig(num_bits=num_bits)


def test_the_downsample_factor_counts_patches_and_halvings() -> None:
    assert BsqTokenizerConfig(patch_size=4, channel_multipliers=[1, 2]).downsample_factor == 8
    assert BsqTokenizerConfig(channel_multipliers=(1, 2, 4, 4, 4)).downsample_factor == 16


def test_organs_that_do_not_fit_are_refused_with_the_numbers() -> None:
    with pytest.raises(StrictDataclassClassValidationError, match="20 scales, but generator_config.max_scales is 15"):
        tiny_config(scale_schedules={"32x32": [[1, 1]] * 19 + [[4, 4]]})
    with pytest.raises(StrictDataclassClassValidationError, match="must be equal"):
        tiny_config(generator_config={"num_bits": 16})


@pytest.mark.parametrize("config_class", [BsqTokenizerConfig, InfinityTokenizerConfig, NextScaleConfig, InfinityConfig])
def test_no_setting_of_an_architecture_is_a_switch(config_class) -> None:
    """A second behaviour is a second class. What transformers' own base class says is not ours."""
    theirs = set(PreTrainedConfig().to_dict())
    ours = {name: value for name, value in config_class().to_dict().items() if name not in theirs}
    assert ours and not [name for name, value in ours.items() if isinstance(value, bool)]


def test_the_only_switch_of_a_chat_model_is_transformers_own() -> None:
    ours = set(VargptConfig().to_dict()) - set(PreTrainedConfig().to_dict())
    assert {name for name in ours if isinstance(getattr(VargptConfig(), name), bool)} == {"tie_word_embeddings"}
