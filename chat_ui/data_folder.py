"""The folder in which the page keeps its history, readable by its user alone, and the secret that signs logins."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from vargpt.pictures.archive import write_whole

SECRET = "secret"


def data_folder() -> Path:
    """VARGPT_DATA, or the folder in which this system keeps the data of its users' programs."""
    if os.environ.get("VARGPT_DATA"):
        return Path(os.environ["VARGPT_DATA"]).expanduser().resolve()
    if os.environ.get("XDG_DATA_HOME"):
        return Path(os.environ["XDG_DATA_HOME"]) / "vargpt"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vargpt" / "data"
    local = Path("Library") / "Application Support" if sys.platform == "darwin" else Path(".local") / "share"
    return Path.home() / local / "vargpt"


def private_folder(folder: Path) -> Path:
    """The folder, made as needed for this user alone.

    Raises:
        OSError: it cannot be made or written; the message says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OSError(f"cannot make {folder} ({error.strerror}); name another folder with --data DIR") from error
    if not os.access(folder, os.W_OK):
        raise OSError(f"cannot write into {folder}; name another folder with --data DIR")
    return folder


def signing_secret(folder: Path) -> str:
    """The secret that logins are signed with; it is made once and kept, so that a restart logs nobody out."""
    path = folder / SECRET
    if not path.is_file() or not path.read_text(encoding="ascii").strip():
        write_whole(path, secrets.token_hex(32).encode("ascii"))  # readable by this user alone
    return path.read_text(encoding="ascii").strip()
