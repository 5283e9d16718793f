"""Changing a recipe from the command line: `--set name=value`, on frozen dataclasses that may hold one another."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def apply_overrides(settings: Settings, overrides: Iterable[str]) -> Settings:
    """A copy of `settings` with each "name=value" applied, left to right.

    A name is a field, or a dotted path ("loop.learning_rate"); a field that occurs once may go by its last part alone.
    Values are Python literals ("3", "1e-4", "(1, 2, 4)", "None"); anything else is taken as a string.

    Raises:
        ValueError: for an item without "=", an unknown or ambiguous name (it says what was meant, perhaps) or a value
            of the wrong type.
    """
    for item in overrides:
        name, separator, text = item.partition("=")
        if not separator:
            raise ValueError(f"--set takes name=value, got {item!r}")
        path = resolve(name.strip(), list(paths_of(settings)))
        settings = replace_at(settings, path.split("."), literal(text.strip()), path)
    return settings


def paths_of(settings: Any, prefix: str = "") -> Iterable[str]:
    """The dotted names of all plain fields."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from paths_of(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def resolve(name: str, paths: list[str]) -> str:
    """The one path that is `name` or ends in it."""
    if name in paths:
        return name
    found = [path for path in paths if path.endswith("." + name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} could be any of {', '.join(found)}; write one of these")
    by_last = {path.rpartition(".")[2]: path for path in paths} | {path: path for path in paths}
    close = difflib.get_close_matches(name, by_last, n=1, cutoff=0.4)
    hint = f"did you mean {by_last[close[0]]!r}?" if close else f"there are {', '.join(paths)}"
    raise ValueError(f"unknown setting {name!r}; {hint}")


def literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def replace_at(settings: Any, keys: list[str], value: Any, path: str) -> Any:
    head, *rest = keys
    before = getattr(settings, head)
    if rest:
        value = replace_at(before, rest, value, path)
    elif isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif before is not None and value is not None and type(value) is not type(before):
        raise ValueError(f"{path} is of type {type(before).__name__}, like {before!r}; got {value!r}")
    return dataclasses.replace(settings, **{head: value})
