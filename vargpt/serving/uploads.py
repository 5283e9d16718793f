"""Pictures at the server's door: data URLs, addresses, files of a form, masks; each becomes a picture or a clear error.

In: what a client sent. Out: upright RGB parts (with their exact tokens if they were drawn here), masks.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, ImageChops, ImageOps

from vargpt.pictures.files import open_picture
from vargpt.serving.errors import ApiError, invalid
from vargpt.serving.picture_store import Gallery
from vargpt.serving.settings import ServeSettings
from vargpt.types import ImagePart

FILES = "/v1/images/files/"  # where pictures drawn here have their addresses
DATA_URL = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
FETCH_SECONDS = 20.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An allowed host could otherwise send us to any other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Uploads:
    """Reads what clients send; blocks, so call it from a thread. `param` names the field that errors blame."""

    settings: ServeSettings
    gallery: Gallery

    def from_url(self, url: str, param: str) -> ImagePart:
        """The picture of a data URL, of an address that this server gave out, or on a host that is allowed."""
        if url[:5].lower() == "data:":
            return self.from_bytes(self._decoded(url, param), param)
        if urlsplit(url).scheme.lower() in ("http", "https"):
            return self.from_bytes(self._fetched(url, param), param)
        shown = url if len(url) <= 40 else f"{url[:40]} ..."
        raise invalid(f"A picture is sent as data:image/png;base64,... and not as {shown!r}.", param)

    def from_bytes(self, data: bytes, param: str) -> ImagePart:
        """The picture of an image file."""
        try:
            return self.gallery.recall(open_picture(data, self.settings.limits.pixels))
        except ValueError as error:
            raise invalid(f"{param}: {error}.", param, "invalid_image") from None

    def mask(self, data: bytes, source: Image.Image, param: str = "mask") -> Image.Image:
        """OpenAI's mask (what is transparent may change) as ours ("L", what is white may change)."""
        self.from_bytes(data, param)  # says what is wrong with damaged and huge files
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode not in ("RGBA", "LA", "PA") and not image.has_transparency_data:
                message = "The mask has no transparency: make a PNG that is transparent where the picture may change."
                raise invalid(message, param, "invalid_image")
            region = ImageChops.invert(image.convert("RGBA").getchannel("A"))
        if region.size != source.size:
            sizes = f"the mask has {region.width}x{region.height} pixels, the picture {source.width}x{source.height}"
            raise invalid(f"Mask and picture must be of one size: {sizes}.", param, "invalid_image")
        if region.getextrema()[1] == 0:
            raise invalid("The mask is opaque everywhere, so nothing may change.", param, "invalid_image")
        return region

    def _decoded(self, url: str, param: str) -> bytes:
        head = DATA_URL.match(url)
        if head is None:
            raise invalid("A data URL of a picture begins with data:image/png;base64, (or jpeg, webp ...).", param)
        try:
            return base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise invalid("The data URL does not hold valid base64.", param, "invalid_image") from None

    def _fetched(self, url: str, param: str) -> bytes:
        parts = urlsplit(url)
        if parts.path.startswith(FILES) and (own := self.gallery.file(parts.path.removeprefix(FILES))) is not None:
            return own
        if parts.hostname not in self.settings.url_hosts:
            raise invalid(
                f"This server fetches no pictures from {parts.hostname}; send the picture itself as a data URL.",
                param, "url_not_allowed",
            )  # fmt: skip
        limit = self.settings.limits.body_bytes
        try:
            with urllib.request.build_opener(_NoRedirect).open(url, timeout=FETCH_SECONDS) as response:
                data = response.read(limit + 1)
        except (OSError, ValueError) as error:
            raise invalid(f"The picture at {url} could not be fetched ({error}).", param, "invalid_image") from None
        if len(data) > limit:
            raise ApiError(400, f"The file at {url} has more than the {limit:,} bytes allowed.", param, "invalid_image")
        return data
