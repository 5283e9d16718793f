"""Users and passwords of the page: a text file with one line per user, with a salted scrypt hash for a password.

    python -m chat_ui.access.users add users.txt ada        asks for the password, or reads it from a pipe
    python -m chat_ui.access.users remove users.txt ada
    vargpt ui --users users.txt

The page reads the file again when it changes. Whoever was removed, or got another password, is logged out.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from vargpt.pictures.archive import write_whole

COST, BLOCK, PARALLEL = 2**15, 8, 1  # 32 MiB and some 0.1 s for every guess
MEMORY = 2**26
NOBODY = f"scrypt${COST}${BLOCK}${PARALLEL}${'00' * 16}${'00' * 64}"  # no password's; what comes of it is as slow
NAME = re.compile(r"[\w.@+-]{1,64}")
SHORTEST = 8  # characters of a password


def hashed(password: str) -> str:
    """ "scrypt$COST$BLOCK$PARALLEL$SALT$HASH" of a password, with a new salt."""
    salt = secrets.token_bytes(16)
    found = hashlib.scrypt(password.encode("utf-8"), salt=salt, n=COST, r=BLOCK, p=PARALLEL, maxmem=MEMORY)
    return "$".join(("scrypt", str(COST), str(BLOCK), str(PARALLEL), salt.hex(), found.hex()))


def matches(password: str, stored: str) -> bool:
    """Whether `stored` is a hash of this password; takes the same time either way."""
    _, cost, block, parallel, salt, expected = stored.split("$")
    found = hashlib.scrypt(
        password.encode("utf-8"),
        salt=bytes.fromhex(salt), n=int(cost), r=int(block), p=int(parallel), maxmem=MEMORY,
    )  # fmt: skip
    return hmac.compare_digest(found.hex(), expected)


class Users:
    """The users of a file, read again whenever the file changes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line of it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file {path}; add a user first: python -m chat_ui.access.users add {path} NAME"
            )
        self._read_at = self._state()
        self._hashes = read_users(path)
        if not self._hashes:
            raise ValueError(f"{path} names no user; add one: python -m chat_ui.access.users add {path} NAME")

    def stamp(self, name: str) -> str | None:
        """A value that changes with the password, kept in logins; None if there is no such user."""
        stored = self.hashes.get(name)
        return None if stored is None else hashlib.sha256(stored.encode()).hexdigest()[:16]

    def check(self, name: str, password: str) -> bool:
        """Whether name and password belong together; slow on purpose."""
        stored = self.hashes.get(name)
        return matches(password, stored or NOBODY) and stored is not None

    @property
    def hashes(self) -> dict[str, str]:
        state = self._state()
        if state != self._read_at:
            self._read_at, self._hashes = state, read_users(self.path) if state else {}
        return self._hashes

    def _state(self) -> tuple[int, int] | None:
        try:
            about = self.path.stat()
        except OSError:
            return None  # no file, no users
        return about.st_mtime_ns, about.st_size


def read_users(path: Path) -> dict[str, str]:
    """The hashes of a file of users by name. Empty lines and lines that begin with # are skipped.

    Raises:
        ValueError: a line cannot be read.
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, stored = line.strip().partition(":")
        if not NAME.fullmatch(name) or not re.fullmatch(r"scrypt\$\d+\$\d+\$\d+\$[0-9a-f]+\$[0-9a-f]+", stored):
            raise ValueError(
                f"{path}, line {number} is not NAME:scrypt$...; "
                f"write it with python -m chat_ui.access.users add {path} NAME"
            )
        found[name] = stored
    return found


def change(path: Path, name: str, password: str | None) -> None:
    """Adds a user, gives one another password, or removes one (None).

    Raises:
        ValueError: the name or the password will not do, or there is nobody to remove.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"a user's name has up to 64 letters, digits and . @ + - _, not {name!r}")
    users = read_users(path) if path.is_file() else {}
    if password is None:
        if users.pop(name, None) is None:
            raise ValueError(f"{path} has no user {name}")
    elif len(password) < SHORTEST:
        raise ValueError(f"a password has at least {SHORTEST} characters")
    else:
        users[name] = hashed(password)
    write_whole(path, "".join(f"{one}:{stored}\n" for one, stored in users.items()).encode("utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chat_ui.access.users", description="Who may log in to the chat page."
    )
    parser.add_argument("what", choices=("add", "remove"))
    parser.add_argument("file", type=Path)
    parser.add_argument("name")
    chosen = parser.parse_args(arguments)
    password = None
    if chosen.what == "add":
        asked = getpass.getpass if sys.stdin.isatty() else lambda _: sys.stdin.readline().rstrip("\n")
        password = asked(f"password of {chosen.name}: ")
    try:
        change(chosen.file, chosen.name, password)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
