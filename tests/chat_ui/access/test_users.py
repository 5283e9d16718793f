"""Who may log in: no password is kept, and whoever left the file is out."""

from __future__ import annotations

import io
import os

import pytest

import chat_ui.access.users
from chat_ui.access.users import Users, change, hashed, main, matches, read_users
from chat_ui.data_folder import data_folder, signing_secret


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(chat_ui.access.users, "COST", 2**10)


def test_a_password_opens_what_was_made_of_it_and_nothing_else() -> None:
    stored = hashed("correct horse")
    assert matches("correct horse", stored) and not matches("correct hors", stored)
    assert hashed("correct horse") != stored, "two users with one password do not show it"


def test_users_are_added_changed_and_removed_and_no_password_is_written(tmp_path) -> None:
    path = tmp_path / "users.txt"
    change(path, "ada", "analytical")
    change(path, "grace", "nanosecond")
    users = Users(path)
    assert users.check("ada", "analytical") and not users.check("ada", "nanosecond")
    assert not users.check("eve", "analytical") and not users.check("eve", "")
    stamp = users.stamp("ada")
    change(path, "ada", "difference engine")
    assert users.check("ada", "difference engine") and not users.check("ada", "analytical")
    assert users.stamp("ada") not in (stamp, None)
    change(path, "ada", None)
    assert users.stamp("ada") is None and not users.check("ada", "difference engine")
    assert b"nanosecond" not in path.read_bytes() and list(read_users(path)) == ["grace"]
    assert path.stat().st_mode & 0o077 == 0, "for this user alone"
    os.remove(path)
    assert users.stamp("grace") is None, "no file, no users"


@pytest.mark.parametrize(
    ("name", "password", "problem"),
    [("a:b", "long enough", "name has up to"), ("", "long enough", "name has up to"), ("ada", "short", "at least 8"),
     ("eve", None, "no user eve")],
)  # fmt: skip
def test_names_and_passwords_that_will_not_do_are_refused(name, password, problem, tmp_path) -> None:
    with pytest.raises(ValueError, match=problem):
        change(tmp_path / "users.txt", name, password)


def test_a_file_that_cannot_be_read_says_which_line(tmp_path) -> None:
    path = tmp_path / "users.txt"
    with pytest.raises(FileNotFoundError, match="add a user first"):
        Users(path)
    path.write_text("# nobody yet\n\n")
    with pytest.raises(ValueError, match="names no user"):
        Users(path)
    path.write_text("# people\nada:secret\n")
    with pytest.raises(ValueError, match="line 2 is not NAME:scrypt"):
        Users(path)


def test_the_command_reads_a_password_from_a_pipe(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    main(["add", str(tmp_path / "users.txt"), "ada"])
    assert Users(tmp_path / "users.txt").check("ada", "correct horse")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    with pytest.raises(SystemExit) as leaving:
        main(["add", str(tmp_path / "users.txt"), "bob"])
    assert leaving.value.code == 2 and "at least 8 characters" in capsys.readouterr().err


# Where things are kept


def test_the_data_folder_is_the_users_own_and_can_be_named(home, monkeypatch) -> None:
    assert data_folder() == home / "vargpt"
    monkeypatch.setenv("VARGPT_DATA", str(home / "elsewhere"))
    assert data_folder() == home / "elsewhere"
    monkeypatch.delenv("VARGPT_DATA")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_folder().is_relative_to(home) and data_folder().name == "vargpt"


def test_the_secret_is_made_once_for_this_user_alone(tmp_path) -> None:
    secret = signing_secret(tmp_path)
    assert len(secret) == 64 and signing_secret(tmp_path) == secret
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
