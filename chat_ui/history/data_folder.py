"""Where the page keeps what must not be lost, who may read it, and files that are either whole or not there."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

SECRET = "secret"


def data_folder() -> Path:
    """VARGPT_DATA, or where this system keeps what its users' programs must not lose."""
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


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that others see either as it was or complete, even if the machine stops meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def signing_secret(folder: Path) -> str:
    """What logins are signed with; made at the first start and then kept, so that a restart logs nobody out."""
    path = folder / SECRET
    if not path.is_file() or not path.read_text(encoding="ascii").strip():
        write_whole(path, secrets.token_hex(32).encode("ascii"))  # mkstemp: readable by this user only
    return path.read_text(encoding="ascii").strip()
