"""The gallery of a cluster: whatever replica drew a picture, each can give its file and change its exact bits.

In and out: as `Gallery`. The pictures lie in an actor of their own, which outlives replicas and deployments. Should it
be lost or slow, its pictures are forgotten, as if their time were over, and nothing else happens.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from vargpt.serving.picture_store import Gallery
from vargpt.types import ImagePart

logger = logging.getLogger(__name__)

ACTOR = "vargpt-gallery"
PATIENCE = 5.0  # seconds until the gallery counts as lost


class SharedGallery(Gallery):
    """As `Gallery`, for all replicas of one Ray cluster."""

    def __init__(self, seconds: float, num_bytes: int, namespace: str) -> None:
        import ray

        super().__init__(seconds, num_bytes)
        options = {"name": ACTOR, "namespace": namespace, "lifetime": "detached", "get_if_exists": True}
        self._actor = ray.remote(Gallery).options(**options, num_cpus=0, max_restarts=-1).remote(seconds, num_bytes)

    def keep(self, part: ImagePart, png: bytes) -> str:
        name = self._ask("keep", part, png)
        return secrets.token_urlsafe(24) if name is None else name

    def file(self, name: str) -> bytes | None:
        return self._ask("file", name)

    def find(self, pixels: str) -> ImagePart | None:
        return self._ask("find", pixels)

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=PATIENCE)
        except RayError as error:  # that it timed out is one, too
            logger.warning("the gallery does not answer (%s); pictures are not remembered", type(error).__name__)
            return None
