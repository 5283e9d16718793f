"""The command line of a training command is a frozen dataclass: its fields are the options, nested ones with a dot."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

try:
    import tyro
    from tyro.conf import Positional as Positional  # a field that is given by its place
except ImportError as error:
    raise ImportError(f"the training commands need more packages ({error}): pip install 'vargpt[train]'") from error

Command = TypeVar("Command")
UNNAMED: Any = tyro.conf.arg(name="")  # for a field whose own fields are options without its name before them


def read_command(
    kind: type[Command], prog: str, arguments: Sequence[str] | None = None, default: Command | None = None
) -> Command:
    """The options of a command; an unknown option ends the process with the nearest right ones.

    Also switches logging on.

    Args:
        kind: the dataclass; `--loop.total-steps 10` sets the field `total_steps` of its field `loop`.
        prog: the command, as `python -m ...`.
        arguments: default those of the process.
        default: holds the values of options that are not given (default: those of the fields).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    start = tyro.MISSING_NONPROP if default is None else default
    with user_errors(prog):
        return tyro.cli(kind, prog=prog, args=arguments, default=start, config=(tyro.conf.AvoidSubcommands,))


@contextlib.contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Ends the process with the message of a `ValueError` or `OSError`, as a wrong option does."""
    try:
        yield
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{prog}: {error}\n")
        raise SystemExit(2) from error
