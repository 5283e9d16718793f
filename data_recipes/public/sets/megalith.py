r"""Megalith-10m: links to 10M Flickr photographs that are marked free of copyright. No captions of its own.

Parquet files of links. The columns of one row:

    url_highres  "https://live.staticflickr.com/65535/53712345678_0a1b2c3d4e_b.jpg"     (1024 px)
    url          "https://live.staticflickr.com/65535/53712345678_0a1b2c3d4e.jpg"
    url_source   "https://www.flickr.com/photos/someone/53712345678/"

Download with img2dataset as WebDataset archives (`--url_col url_highres`), or stream: then a picture is fetched when
its row is built. Others publish captions by key (ShareCaptioner, Florence-2, InternVL2); put them in as `.txt` members,
or build with `--recaption`. Rows without a caption are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sources import (
    archive_samples,
    folder,
    is_hub_id,
    picture_behind,
    picture_member,
    table,
    text_member,
)

CARD = DataSet(
    name="megalith",
    title="Megalith-10m",
    kind="text_to_image",
    homepage="https://huggingface.co/datasets/madebyollin/megalith-10m",
    hub_id="madebyollin/megalith-10m",
    licence="MIT (links); CC0, public domain mark, US government work or no known restrictions (pictures)",
    commercial="yes",
    commercial_reason="meant to be free for anything; Flickr's marks are sometimes wrong, the author advises to check",
    size="9.6M links",
    stage="3",
    files="*.tar of img2dataset (jpg, txt if captioned), or *.parquet of links",
)


def read(source: str) -> Iterator[SourceRow]:
    """Rows of the archives if there are any, else of the table of links."""
    if not is_hub_id(source) and any(folder(source, CARD.files).rglob("*.tar")):
        for key, members in archive_samples(folder(source, CARD.files)):
            picture, caption = picture_member(members), text_member(members)
            if picture is not None:
                yield SourceRow(id=key, pictures=(picture,), captions=(caption,) if caption else ())
        return
    for row in table(source, split="megalith"):  # what the hub's one split is called
        url = row.get("url_highres") or row.get("url") or row.get("url_source") or ""
        yield SourceRow(id=row.get("url_source") or url, pictures=(picture_behind(url),))
