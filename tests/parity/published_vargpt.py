"""VARGPT-v1.1 with the weights of a case, and conversations with it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tests.parity.cases_on_disk import Case
from tests.parity.published import fill_all
from vargpt.assistant.conversation_state import ConversationState
from vargpt.assistant.model import VARGPT
from vargpt.generators.schedules import INFINITY_LENGTHS, infinity_schedules
from vargpt.published.vargpt_v1_1 import VargptV11, VargptV11Config, config_from_published
from vargpt.published.vargpt_v1_1_weights import vargpt_map
from vargpt.sampling import seeded
from vargpt.types import ImageProgress, ImageSampling, ImageTokens

GREEDY = ImageSampling(guidance_scale=3.0, temperature=0.0)  # published drawing has no other guidance


def config_of(case: Case) -> VargptV11Config:
    gen, vae = case.config["gen"], case.config["vae"]
    decoder = {
        "hidden_size": gen["embed_dim"],
        "num_layers": gen["depth"],
        "num_heads": gen["num_heads"],
        "mlp_ratio": gen["mlp_ratio"],
        "code_dim": vae["codebook_dim"],
        "num_bits": vae["codebook_dim"],
        "memory_size": gen["text_channels"],
        "null_length": gen["text_maxlen"],
    }
    autoencoder = {
        "num_bits": vae["codebook_dim"],
        "base_channels": vae["base_ch"],
        "channel_multipliers": vae["ch_mult"],
    }
    published = {**case.config["text"], "special_tokens": case.config["special_tokens"]}
    config = config_from_published(published, decoder, autoencoder)
    config.default_size = square(gen["pn"])
    return config


def square(area: str) -> str:
    """The size that published code draws without being asked, "HEIGHTxWIDTH": always a square."""
    sizes = [size for size, scales in infinity_schedules().items() if len(scales) == INFINITY_LENGTHS[area]]
    return next(size for size in sizes if len(set(size.split("x"))) == 1)


def build(case: Case) -> VargptV11:
    model = VargptV11(config_of(case))
    fill_all(model, vargpt_map(model.config, case.config["gen"]["block_chunks"]), case.weights("model"))
    return model.eval()


def started(model: VARGPT, ids: Tensor, **inputs: Tensor) -> ConversationState:
    """The conversation up to the token that opens a picture."""
    start = torch.tensor([[model.config.image_gen_start_token_id]])
    if int(ids[0, -1]) != int(start):
        ids = torch.cat((ids, start), dim=1)
    return model.extend(None, ids, None, **inputs)


def draw(
    model: VARGPT,
    ids: Tensor,
    sampling: ImageSampling = GREEDY,
    seed: int = 0,
    given: ImageTokens | None = None,
    **inputs: Tensor,
) -> Iterator[ImageProgress]:
    state = started(model, ids, **inputs)
    return model.draw(state, model.config.layout(), sampling, seeded([seed]), given)
