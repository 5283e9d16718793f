"""The real OpenAI client asking for pictures, changes and variations."""

from __future__ import annotations

import io
from collections.abc import Iterator

import openai
import pytest
from PIL import Image

from tests.chat.scripted import red_square
from tests.serving.running import Running, picture_of, png, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return server.client()


def source(side: int = 32) -> bytes:
    return png(red_square(side))


def half_mask(side: int = 32) -> bytes:
    """OpenAI's: the left half is transparent, which means that it may change."""
    mask = Image.new("RGBA", (side, side), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, side // 2, side))
    return png(mask)


def test_four_pictures_have_four_seeds_and_say_what_they_are(client: openai.OpenAI) -> None:
    reply = client.images.generate(prompt="a fox", n=4, size="32x32", extra_body={"seed": 5})
    assert [image.seed for image in reply.data] == [5, 6, 7, 8]
    assert len({image.b64_json for image in reply.data}) == 4
    pictures = [picture_of(image.b64_json) for image in reply.data]
    assert {picture.size for picture in pictures} == {(32, 32)}
    assert pictures[0].text["prompt"] == "a fox" and pictures[0].text["seed"] == "5"
    assert reply.data[0].revised_prompt == "ok!" and reply.size == "32x32" and reply.output_format == "png"
    assert reply.usage.output_tokens_details.image_tokens == 4 * 21


def test_sizes_are_width_by_height(client: openai.OpenAI) -> None:
    reply = client.images.generate(prompt="a fox", size="32x16")
    assert picture_of(reply.data[0].b64_json).size == (32, 16) and reply.size == "32x16"
    assert picture_of(client.images.generate(prompt="a fox", size="auto").data[0].b64_json).size == (32, 32)


def test_extensions_reach_the_model(client: openai.OpenAI, server: Running) -> None:
    extra = {
        "seed": 3, "guidance_scale": 4.5, "image_guidance_scale": 1.5, "temperature": 0.25, "top_k": 7, "top_p": 0.9,
    }  # fmt: skip
    client.images.generate(prompt="a fox", extra_body=extra)
    sampling = server.asked.image_sampling
    assert (sampling.guidance_scale, sampling.image_guidance_scale, sampling.temperature) == (4.5, 1.5, 0.25)
    assert (sampling.top_k, sampling.top_p) == (7, 0.9) and server.asked.seed == 3 and server.asked.route == "image"
    client.images.generate(prompt="a fox")
    assert server.asked.image_sampling is None


def test_a_stream_shows_partial_pictures_and_then_the_finished_ones(client: openai.OpenAI) -> None:
    stream = client.images.generate(prompt="a fox", n=2, stream=True, partial_images=2, extra_body={"seed": 5})
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 4 + [
        "image_generation.completed"
    ] * 2
    assert [(event.index, event.partial_image_index) for event in events[:4]] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    whole = client.images.generate(prompt="a fox", n=2, extra_body={"seed": 5})
    assert [event.b64_json for event in events[4:]] == [image.b64_json for image in whole.data]
    assert sum(event.usage.total_tokens for event in events[4:]) == whole.usage.total_tokens


def test_a_stream_without_partial_pictures_has_the_finished_one_only(client: openai.OpenAI) -> None:
    (event,) = client.images.generate(prompt="a fox", stream=True)
    assert event.type == "image_generation.completed" and picture_of(event.b64_json).size == (32, 32)


def test_a_picture_may_be_fetched_from_an_address(client: openai.OpenAI, server: Running) -> None:
    url = client.images.generate(prompt="a fox", response_format="url").data[0].url
    assert url.startswith(server.url)
    reply = server.get(url.removeprefix(server.url))
    assert reply.headers["content-type"] == "image/png"
    drawn = Image.open(io.BytesIO(reply.content))
    assert drawn.size == (32, 32) and drawn.text["prompt"] == "a fox"
    gone = server.get("/v1/images/files/guessed")
    assert gone.status_code == 404 and gone.json()["error"]["code"] == "file_not_found"
    parts = [{"type": "text", "text": "and this?"}, {"type": "image_url", "image_url": {"url": url}}]
    client.chat.completions.create(model="nano", messages=[{"role": "user", "content": parts}], max_tokens=4)
    assert server.asked.messages[-1].images[0].tokens is not None  # the same picture, to the bit


def test_an_edit_says_what_may_change(client: openai.OpenAI, server: Running) -> None:
    extra = {"seed": 9, "faithfulness": 0.5, "keep_scales": 1}
    reply = client.images.edit(image=source(), mask=half_mask(), prompt="make it night", n=2, extra_body=extra)
    assert [image.seed for image in reply.data] == [9, 10]
    request = server.asked
    assert request.messages[-1].text == "make it night" and request.route == "image" and request.faithfulness == 0.5
    assert request.keep_scales == 1 and request.given.image.size == (32, 32)
    assert request.region.mode == "L"
    assert (request.region.getpixel((0, 0)), request.region.getpixel((31, 0))) == (255, 0)


def test_an_edit_without_a_mask_may_change_everything(client: openai.OpenAI, server: Running) -> None:
    reply = client.images.edit(image=("red.png", source(), "image/png"), prompt="make it night")
    assert picture_of(reply.data[0].b64_json).size == (32, 32)
    assert server.asked.region is None and server.asked.given is None
    assert reply.usage.input_tokens_details.image_tokens == 16


def test_of_several_pictures_the_first_is_changed_and_stands_last(client: openai.OpenAI, server: Running) -> None:
    blue = png(Image.new("RGB", (32, 32), "blue"))
    client.images.edit(image=[source(), blue], prompt="put this beside that")
    colours = [part.image.getpixel((0, 0)) for part in server.asked.messages[-1].images]
    assert colours == [(0, 0, 255), (220, 20, 20)]


def test_an_edit_streams_like_a_generation(client: openai.OpenAI) -> None:
    stream = client.images.edit(image=source(), prompt="make it night", stream=True, partial_images=1)
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def test_variations_keep_the_coarse_scales_of_a_picture(client: openai.OpenAI, server: Running) -> None:
    reply = client.images.create_variation(image=source(), n=2, extra_body={"keep_scales": 1, "seed": 2})
    assert [image.seed for image in reply.data] == [2, 3]
    assert all(picture_of(image.b64_json).size == (32, 32) for image in reply.data)
    assert server.asked.keep_scales == 1 and server.asked.given.image.getpixel((0, 0)) == (220, 20, 20)
    by_address = client.images.create_variation(image=source(), response_format="url")
    assert "/v1/images/files/" in by_address.data[0].url
    assert server.asked.keep_scales == 1 and server.asked.n == 1  # half of the three scales, rounded down


BAD_EDITS = {
    "image": ({"image": ("x.png", b"no picture", "image/png")}, "not a picture"),
    "mask": ({"image": source(), "mask": source()}, "no transparency"),
    "mask ": ({"image": source(), "mask": half_mask(16)}, "16x16 pixels, the picture 32x32"),
    "mask  ": ({"image": source(), "mask": png(Image.new("RGBA", (32, 32), "black"))}, "nothing may change"),
    "faithfulness": ({"image": source(), "extra_body": {"faithfulness": 2}}, "less than or equal to 1"),
    "keep_scale": ({"image": source(), "extra_body": {"keep_scale": 2}}, "did you mean 'keep_scales'"),
    "size": ({"image": source(), "size": "1024x1024"}, "choose one of 32x32"),
}


@pytest.mark.parametrize("param", BAD_EDITS)
def test_what_is_wrong_with_an_edit_is_said(client: openai.OpenAI, param: str) -> None:
    fields, words = BAD_EDITS[param]
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        client.images.edit(prompt="make it night", **fields)
    assert caught.value.param == param.strip()


def test_a_form_without_a_picture_or_with_words_in_its_place_is_refused(server: Running) -> None:
    for fields, files in (({"prompt": "x"}, {"mask": half_mask()}), ({"prompt": "x", "image": "fox"}, {"mask": b""})):
        reply = server.post("/v1/images/edits", data=fields, files=files)
        assert reply.status_code == 400 and reply.json()["error"]["param"] == "image"
    reply = server.post("/v1/images/edits", files={"image": source()})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "prompt"
    reply = server.post("/v1/images/edits", content=b"{}", headers={"content-type": "application/json"})
    assert reply.status_code == 400
