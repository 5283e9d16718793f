"""The whole published model without a language model: from prompts to the recorded bits, through `TextToImage`."""

from __future__ import annotations

import pytest
from torch import nn

from tests.parity.cases_on_disk import Case
from tests.parity.published import (
    build_autoencoder,
    build_generator,
    call_of,
    check_bits,
    check_picture,
    layout_of,
    padded,
)
from vargpt.published.infinity import infinity_layouts
from vargpt.text_to_image.pipeline import TextToImage, TextToImageConfig
from vargpt.text_to_image.text_encoder import TextEncoder, TextStates
from vargpt.types import ImageSampling

pytestmark = pytest.mark.cases_of("infinity", "vae", "infinity")


class RecordedEncoder(TextEncoder):
    """Hands out the states that the case recorded: "prompt 1" is the second prompt, "negative 0" the first negative."""

    def __init__(self, case: Case) -> None:
        nn.Module.__init__(self)  # there is no T5
        self.case = case
        self.recorded = {"prompt": padded(case.input("text_kv_compact"), case.input("lens").tolist())}
        if "inputs/negative_kv_compact" in case.tensors:
            negative = padded(case.input("negative_kv_compact"), case.input("negative_lens").tolist())
            self.recorded["negative"] = negative

    @property
    def width(self) -> int:
        return self.case.config["text_channels"]

    def forward(self, prompts: list[str]) -> TextStates:
        kinds = [prompt.split() for prompt in prompts]
        states, mask = self.recorded[kinds[0][0]]
        rows = [int(row) for _, row in kinds]
        return TextStates(states[rows], mask[rows])


@pytest.fixture(scope="module")
def model(case: Case) -> TextToImage:
    codec = build_autoencoder(case, case.config)
    generator = build_generator(case, codec.code_dim)
    layout = layout_of(case)
    config = TextToImageConfig(
        generator_config=generator.config,
        image_tokenizer_config=codec.config,
        layouts=infinity_layouts(),
        default_size=f"{layout.height}x{layout.width}",
    )
    return TextToImage(config, RecordedEncoder(case), generator, codec)


def prompts(case: Case, kind: str = "prompt") -> list[str]:
    return [f"{kind} {row}" for row in range(len(case.input("lens")))]


def check(case: Case, model: TextToImage, name: str, guidance: float | None = None, layer: int = 0, **fields) -> None:
    guidance = call_of(case)["cfg"] if guidance is None else guidance
    sampling = ImageSampling(guidance_scale=guidance, temperature=0.0, guidance_layer=layer)
    seeds = list(range(len(case.input("lens"))))
    steps = list(model.draw(prompts(case), seeds, sampling=sampling, **fields))
    check_bits(case, steps, name)
    if name != "greedy_bits":
        return
    check_picture(case, model.image_tokenizer, steps[-1].tokens, "greedy_img_u8_bgr")


@pytest.mark.recorded("greedy_bits", "greedy_img_u8_bgr")
def test_prompts_become_the_recorded_picture(case, model) -> None:
    check(case, model, "greedy_bits")


@pytest.mark.recorded("nocfg_greedy_bits")
def test_without_guidance(case, model) -> None:
    check(case, model, "nocfg_greedy_bits", guidance=1.0)


@pytest.mark.recorded("cfg_layer_m*_greedy_bits")
def test_guidance_at_a_layer(case, model) -> None:
    for name in case.names("cfg_layer_m*_greedy_bits"):
        layer = -int(name.removeprefix("cfg_layer_m").removesuffix("_greedy_bits"))
        check(case, model, name, layer=layer)


@pytest.mark.recorded("negprompt_greedy_bits")
def test_a_negative_prompt_takes_the_place_of_the_null(case, model) -> None:
    check(case, model, "negprompt_greedy_bits", negative_prompts=prompts(case, "negative"))
