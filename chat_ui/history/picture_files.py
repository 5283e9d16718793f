"""Pictures that the page shows, as files: one folder per conversation, with names that no visitor chooses.

In: what Chainlit keeps of an upload or of a picture card. Out: files below `root`, and the addresses at which the page
serves them, each to the user to whom the conversation belongs. A file is complete or not there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from chainlit.auth import get_current_user
from chainlit.data import get_data_layer
from chainlit.data.storage_clients.base import BaseStorageClient
from chainlit.user import User
from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute

from chat_ui.access.current_user import NotYoursError
from vargpt.pictures.archive import write_whole

ADDRESS = "/pictures"
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
UNKNOWN = ".bin"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}(\.[a-z]{1,8})?")
DATA_URL = re.compile(r"data:([\w.+/-]+);base64,")


def is_id(value: object) -> bool:
    """Whether a value is a UUID, as Chainlit makes ids. Browsers send ids, and ids become names of files."""
    try:
        return str(uuid.UUID(str(value))) == value
    except ValueError:
        return False


class PictureFiles(BaseStorageClient):
    """Files by key, "CONVERSATION/NAME"."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """The path of the file of a key.

        Raises:
            ValueError: the key is not one that this class gives.
        """
        folder, _, name = key.partition("/")
        if not is_id(folder) or not SAFE_NAME.fullmatch(name):
            raise ValueError(f"{key!r} is no name of a picture")
        return self.root / folder / name

    async def upload_file(
        self,
        object_key: str,
        data: bytes | str,
        mime: str = "application/octet-stream",
        overwrite: bool = True,
        content_disposition: str | None = None,
    ) -> dict[str, Any]:
        """Writes a file; its name gets the suffix of its type, or `UNKNOWN` if it is not a picture."""
        key = object_key + next((ending for ending, kind in TYPES.items() if kind == mime), UNKNOWN)
        path = self.path(key)
        if overwrite or not path.exists():
            await asyncio.to_thread(write_whole, path, data.encode() if isinstance(data, str) else data)
        return {"object_key": key, "url": await self.get_read_url(key)}

    async def delete_file(self, object_key: str) -> bool:
        path = self.path(object_key)
        existed = path.is_file()
        path.unlink(missing_ok=True)
        return existed

    async def get_read_url(self, object_key: str) -> str:
        return f"{ADDRESS}/{object_key}"

    async def close(self) -> None:
        """Does nothing: no file is open between two calls."""

    async def keep_props(self, thread_id: str, element_id: str, props: Mapping[str, Any]) -> dict[str, Any]:
        """The same props with every `data:` URL written to a file and replaced by its address."""
        kept = {}
        for name, value in props.items():
            found = DATA_URL.match(value) if isinstance(value, str) else None
            if found:
                try:
                    data = base64.b64decode(value[found.end() :], validate=True)
                except binascii.Error:
                    continue
                key = f"{thread_id}/{element_id}-{re.sub(r'[^A-Za-z0-9]', '', name)}"
                value = (await self.upload_file(key, data, found[1]))["url"]
            kept[name] = value
        return kept

    def delete_element(self, thread_id: str, element_id: str) -> None:
        """Removes all files of one element."""
        if is_id(thread_id) and is_id(element_id):
            for path in (self.root / thread_id).glob(f"{element_id}*"):
                path.unlink(missing_ok=True)

    def delete_conversation(self, thread_id: str) -> None:
        """Removes all files of one conversation."""
        if is_id(thread_id):
            shutil.rmtree(self.root / thread_id, ignore_errors=True)


def serve_pictures(app: FastAPI) -> None:
    """Adds the addresses of pictures to Chainlit's application, before Chainlit's own routes."""
    app.router.routes.insert(0, APIRoute(f"{ADDRESS}/{{thread_id}}/{{name:path}}", picture, methods=["GET"]))


async def picture(thread_id: str, name: str, user: Annotated[User | None, Depends(get_current_user)]) -> FileResponse:
    """Answers GET with a picture, for the owner of its conversation only."""
    store = get_data_layer()
    if user is None or await store.get_thread_author(thread_id) != user.identifier:
        raise NotYoursError("picture")
    try:
        path = store.pictures.path(f"{thread_id}/{name}")
    except ValueError:
        raise NotYoursError("picture") from None
    if not path.is_file():
        raise NotYoursError("picture")
    headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    media_type = TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=media_type, headers=headers)
