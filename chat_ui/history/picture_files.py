"""Pictures of the history as files: one folder per conversation, names that no visitor chooses, whole or not there.

In: what Chainlit wants to keep of an upload or of a picture card. Out: files below `root`, and the addresses at which
the page serves them (`chat_ui/access/logins.py` says to whom).
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
from typing import Any

from chainlit.data.storage_clients.base import BaseStorageClient

from chat_ui.history.data_folder import write_whole

ADDRESS = "/pictures"
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
UNKNOWN = ".bin"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}(\.[a-z]{1,8})?")
DATA_URL = re.compile(r"data:([\w.+/-]+);base64,")


def is_id(value: object) -> bool:
    """Whether this is an id as Chainlit makes them (a UUID). Visitors send ids, and they become names of files."""
    try:
        return str(uuid.UUID(str(value))) == value
    except ValueError:
        return False


class PictureFiles(BaseStorageClient):
    """Files by key, "CONVERSATION/NAME"."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the file of a key lies.

        Raises:
            ValueError: no such key can be; whoever asks gets no further.
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
        """Keeps a file; its name gets the ending of its type, and `UNKNOWN` if that is no picture's."""
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
        """Nothing is open between two calls."""

    async def keep_props(self, thread_id: str, element_id: str, props: Mapping[str, Any]) -> dict[str, Any]:
        """The same props with files in place of data: what was a `data:` URL becomes the address of a picture."""
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
