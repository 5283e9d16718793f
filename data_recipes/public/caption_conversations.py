"""How a captioned picture becomes a conversation: the choice and wording of captions, and models that write new ones.

Everything random is keyed by the id of the row, so that the same row gives the same words on every machine, whatever
came before it.
"""

from __future__ import annotations

import pkgutil
import random
from collections.abc import Callable, Sequence
from typing import Any

from PIL.Image import Image

from data_recipes.public.base import DRAWN, PublishedTurn

Captioner = Callable[[Image], str]
REQUESTS = (  # "{caption}" begins in lower case and ends without a full stop
    "{caption}",
    "Draw {caption}.",
    "Please draw {caption}.",
    "Make a picture of {caption}.",
    "Can you draw {caption}?",
    "I would like to see {caption}.",
    "Show me {caption}.",
    "A picture, please: {caption}.",
)
ARTICLES = {"A", "An", "The", "This", "There", "Two", "Three", "Some", "Several", "Many", "In", "On"}
DESCRIBE = (
    "Describe this picture in two or three sentences. Begin with what it shows; do not guess what cannot be seen."
)


def pick(captions: Sequence[str], row_id: str, long_share: float = 0.5, seed: int = 0) -> str:
    """The longest caption in `long_share` of all rows, the shortest one in the others.

    SimpleAR (arXiv 2504.11455, section 4) trains on long and short prompts in this way.

    Args:
        captions: at least one.
        row_id: keys the choice.
        long_share: 0 to 1.
        seed: another one, another choice.
    """
    long = random.Random(f"length-{seed}-{row_id}").random() < long_share
    return (max if long else min)(captions, key=len)


def drawing_turns(
    captions: Sequence[str], row_id: str, long_share: float = 0.5, seed: int = 0
) -> tuple[PublishedTurn, PublishedTurn]:
    """A request for the picked caption, and a reply that says in the shortest one what it draws, then draws it."""
    reply = as_sentence(min(captions, key=len))
    return request_turn(captions, row_id, long_share, seed), PublishedTurn("assistant", reply + DRAWN)


def request_turn(captions: Sequence[str], row_id: str, long_share: float = 0.5, seed: int = 0) -> PublishedTurn:
    """The user turn that asks for the picture, in one of the wordings of `REQUESTS`."""
    caption = pick(captions, row_id, long_share, seed)
    wording = random.Random(f"wording-{seed}-{row_id}").choice(REQUESTS)
    if len(caption) > 200 or wording == "{caption}":  # several sentences do not fit into one of ours
        return PublishedTurn("user", caption)
    return PublishedTurn("user", wording.format(caption=as_phrase(caption)))


def as_phrase(caption: str) -> str:
    """A caption that can stand in a sentence: without its full stop, an article in lower case."""
    caption = caption.strip().removesuffix(".")
    first, _, rest = caption.partition(" ")
    return f"{first.lower()} {rest}" if first in ARTICLES and rest else caption


def as_sentence(caption: str) -> str:
    """The caption with a capital letter and a full stop."""
    caption = caption.strip()
    return caption[:1].upper() + caption[1:] + ("" if caption[-1:] in ".!?" else ".")


class TransformersCaptioner:
    """A vision-language model of the hub, or a local one, that describes pictures: `Image -> str`.

    Greedy, so that a build that is taken up again goes on as it would have.
    """

    def __init__(self, model: str, prompt: str = DESCRIBE, device: str = "cpu", max_new_tokens: int = 160) -> None:
        from transformers.pipelines import pipeline

        self.prompt, self.max_new_tokens = prompt, max_new_tokens
        self.describe = pipeline("image-text-to-text", model=model, device=device)

    def __call__(self, image: Image) -> str:
        """The description of one picture."""
        parts = [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]
        answer = self.describe(
            text=[{"role": "user", "content": parts}],
            return_full_text=False,
            generate_kwargs={"max_new_tokens": self.max_new_tokens, "do_sample": False},
        )
        return answer[0]["generated_text"].strip()


def named(spec: str) -> Callable[[Image], Any]:
    """The function that "module:name" stands for: a captioner, or a scorer, of your own.

    Raises:
        ValueError: the spec has another form, or the module has no such function.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ValueError(f"a function of your own is given as module:name, got {spec!r}")
    try:
        function = pkgutil.resolve_name(spec)
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"{spec!r} cannot be imported: {error}") from None
    if not callable(function):
        raise ValueError(f"{spec!r} is no function")
    return function
