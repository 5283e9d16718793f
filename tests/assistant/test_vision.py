"""Pictures on their way into the language model."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from vargpt.assistant.processor import square_image_processor
from vargpt.assistant.vision import patchify, picture_features
from vargpt.pictures.fitting import to_pixels
from vargpt.testing import tiny_config

CONFIG = tiny_config().vision_config


@pytest.fixture(scope="module")
def vision() -> Qwen2VisionTransformerPretrainedModel:
    torch.manual_seed(0)
    return Qwen2VisionTransformerPretrainedModel._from_config(CONFIG).eval()


def pictures(count: int, width: int, height: int) -> list[Image.Image]:
    noise = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in noise]


@pytest.mark.parametrize(("width", "height"), [(32, 32), (48, 32), (16, 64)])
def test_patches_are_those_of_the_published_image_processor(width, height) -> None:
    images = pictures(3, width, height)
    processor = Qwen2VLImageProcessorPil(
        patch_size=4,
        merge_size=2,
        size={"shortest_edge": 64, "longest_edge": 64 * 64},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    expected = processor(images=images, return_tensors="pt")
    patches, grid = patchify(to_pixels(images), CONFIG)
    assert torch.equal(grid, expected["image_grid_thw"])
    assert_close(patches, expected["pixel_values"].float(), atol=1e-6, rtol=0)


def test_the_square_processor_cuts_training_and_inference_alike() -> None:
    images = pictures(2, 32, 32)
    expected = square_image_processor(32)(images=images, return_tensors="pt")
    assert_close(patchify(to_pixels(images), CONFIG)[0], expected["pixel_values"].float(), atol=1e-6, rtol=0)


def test_a_picture_has_the_same_features_whoever_its_batch_mates_are(vision) -> None:
    small, wide = patchify(to_pixels(pictures(1, 16, 16)), CONFIG), patchify(to_pixels(pictures(2, 32, 16)), CONFIG)
    together = picture_features(vision, torch.cat((small[0], wide[0])), torch.cat((small[1], wide[1])))
    assert together.shape == (4 + 8 + 8, CONFIG.hidden_size)
    assert_close(together[:4], picture_features(vision, *small), atol=1e-5, rtol=1e-4)
    first, second = (picture_features(vision, wide[0][at], wide[1][:1]) for at in (slice(0, 32), slice(32, 64)))
    assert_close(together[4:], torch.cat((first, second)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_feature_stands_for_the_square_of_patches_at_its_place(vision) -> None:
    """Placeholder order is row-major over merged patches: with patches alone, a change stays in one group of four."""
    pixels = to_pixels(pictures(1, 32, 32))
    changed = pixels.clone()
    changed[:, :, 8:16, 16:24] *= -1  # merged cell (1, 2) of 4x4
    difference = (patchify(pixels, CONFIG)[0] != patchify(changed, CONFIG)[0]).any(1)
    assert difference.nonzero().flatten().tolist() == [4 * (1 * 4 + 2) + i for i in range(4)]
    assert picture_features(vision, *patchify(pixels, CONFIG)).shape[0] == 16
