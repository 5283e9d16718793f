"""The public data sets by the name that `--data-set` takes."""

from __future__ import annotations

import difflib

from data_recipes.public.base import Recipe
from data_recipes.public.sets import (
    cc3m_cc12m,
    imagenet,
    journeydb,
    laion_coco_aesthetic,
    llava_instruct,
    llava_onevision,
    megalith,
    midjourney_prompts,
    open_images,
    sa1b,
    stylebooth,
)

DATA_SETS: dict[str, Recipe] = {
    "llava_instruct": llava_instruct,
    "llava_onevision": llava_onevision,
    "laion_coco_aesthetic": laion_coco_aesthetic,
    "journeydb": journeydb,
    "cc3m_cc12m": cc3m_cc12m,
    "open_images": open_images,
    "sa1b": sa1b,
    "megalith": megalith,
    "imagenet": imagenet,
    "stylebooth": stylebooth,
    "midjourney_prompts": midjourney_prompts,
}


def recipe(name: str) -> Recipe:
    """The module of the data set with this name.

    Raises:
        ValueError: there is none; it says which was meant, perhaps.
    """
    if name in DATA_SETS:
        return DATA_SETS[name]
    close = difflib.get_close_matches(name, DATA_SETS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(DATA_SETS)}"
    raise ValueError(f"unknown data set {name!r}; {hint}")
