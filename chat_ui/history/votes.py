"""Visitors' votes as preferences that a model can be trained on.

A vote is about the pictures of one reply: one of several was chosen, or a thumb went up or down below them; a `Ballot`
(`ballots.py`) keeps what it was about. `pairs` makes preferences of many ballots: what was chosen over each of its
alternatives, and every liked picture over every disliked one of the same conversation so far, whoever drew it.

    python -m chat_ui.history.votes export runs/votes
    python -m training.recipes.nano_dpo --preferences runs/votes --out runs/nano_dpo
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chat_ui.history.ballots import Ballot, picked
from chat_ui.history.saved_conversations import archive_in
from vargpt.pictures.preference_rows import ROWS, Preference, PreferenceFolder
from vargpt.types import ImagePart, Message, TextPart


@dataclass(frozen=True)
class Vote:
    """A ballot and its verdict: the picture was "chosen" among the others, "liked", or "disliked"."""

    ballot: Ballot
    verdict: str


def pairs(votes: Iterable[Vote]) -> Iterator[Preference]:
    """Preferences, in an order that depends on the votes alone. Pictures without tokens teach nothing."""
    liked: dict[str, list[Ballot]] = {}
    disliked: dict[str, list[Ballot]] = {}
    for vote in votes:
        ballot, best = vote.ballot, picked(vote.ballot)
        if vote.verdict == "chosen":
            rivals = [part for part in ballot.reply.images if part is not best and opening(part) == opening(best)]
            for other in rivals:
                yield from _pair(ballot, best, ballot, other)
        else:
            (liked if vote.verdict == "liked" else disliked).setdefault(asked(ballot), []).append(ballot)
    for question, ballots in liked.items():
        for good in ballots:
            for bad in disliked.get(question, ()):
                yield from _pair(good, picked(good), bad, picked(bad))


def _pair(good: Ballot, best: ImagePart, bad: Ballot, worst: ImagePart) -> Iterator[Preference]:
    if (
        best.tokens is not None
        and worst.tokens is not None
        and kind(best) == kind(worst)
        and best.tokens != worst.tokens
    ):
        yield Preference(good.prompt, replied(good.reply, best), replied(bad.reply, worst))


def opening(part: ImagePart) -> int:
    """Number of the prompt within the reply that the picture was drawn for."""
    return part.settings.get("opening", 0)


def kind(part: ImagePart) -> str:
    """Size, scales and token type of a picture, which all pictures of one training run must share."""
    if part.tokens is None:
        raise ValueError("a picture without tokens is of no kind")
    layout, grid = part.tokens.layout, part.tokens.grids[0]
    return (
        f"{layout.width} × {layout.height} pixels, {layout.num_tokens} tokens of {tuple(grid.shape[3:])} {grid.dtype}"
    )


def asked(ballot: Ballot) -> str:
    """A digest of all words and pictures before the reply: equal for equal questions."""
    digest = hashlib.sha256()
    for message in ballot.prompt:
        digest.update(message.role.encode())
        for part in message.parts:
            digest.update(part.text.encode() if isinstance(part, TextPart) else part.image.tobytes())
    return digest.hexdigest()


def replied(reply: Message, part: ImagePart) -> Message:
    """A reply cut down to one of its pictures and the words before it."""
    place = next(place for place, one in enumerate(reply.parts) if one is part)
    words = tuple(one for one in reply.parts[:place] if isinstance(one, TextPart))
    settings = part.settings | {"alternative": 0} if part.settings else part.settings
    return Message("assistant", (*words, ImagePart(part.image, part.tokens, part.seed, settings)))


# -- as a folder to learn from -----------------------------------------------------------------------------------------


def write_pairs(found: Sequence[Preference], out: Path) -> str:
    """Writes the pairs of the most frequent kind of picture; returns one line that says what was written and left out.

    Raises:
        ValueError: there is nothing to write, or `out` has rows already.
    """
    if (out / ROWS).exists():
        raise ValueError(f"{out} holds preferences already; name another folder")
    if not found:
        raise ValueError(
            "no two pictures can be compared yet: choose among several pictures of one reply, or give thumbs up and "
            "down to pictures of the same question"
        )
    counts = Counter(kind(pair.chosen.images[0]) for pair in found)
    common = counts.most_common(1)[0][0]
    rows = [pair for pair in found if kind(pair.chosen.images[0]) == common]
    folder = PreferenceFolder.continued(out, {"made_by": "votes of the chat page", "kind": common})
    for number, pair in enumerate(rows):
        folder.add(number, pair)
    told = f"{len(rows)} pairs of {common} in {out}"
    if len(rows) < len(found):
        told += f"; {len(found) - len(rows)} of other kinds were left out, because one run learns from one kind"
    return told


# -- the command -------------------------------------------------------------------------------------------------------


async def read_votes(address: str, folder: Path) -> list[Vote]:
    """All votes of a history, oldest first; those whose pictures cannot be read are left out."""
    from sqlalchemy import text

    from chat_ui.history.schema import open_engine

    engine = open_engine(address)
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(text('SELECT * FROM votes ORDER BY "createdAt", "id"'))).mappings().all()
    finally:
        await engine.dispose()
    votes = []
    for row in rows:
        restored = archive_in(folder / "conversations" / row["threadId"]).read(json.loads(row["document"]))
        verdict = "chosen" if row["kind"] == "choice" else "liked" if row["value"] else "disliked"
        if not restored.lost:
            votes.append(Vote(restored.value, verdict))
    return votes


def main(arguments: Sequence[str] | None = None) -> None:
    from chat_ui.data_folder import data_folder
    from chat_ui.history.schema import database_address, prepare_database

    parser = argparse.ArgumentParser(prog="python -m chat_ui.history.votes", description="What visitors found better.")
    commands = parser.add_subparsers(required=True)
    export = commands.add_parser("export", help="write preferences for `python -m training.recipes.nano_dpo`")
    export.add_argument("out", type=Path, help="a new folder")
    export.add_argument("--data", type=Path, help="the folder that the page was given (default: as the page's)")
    export.add_argument("--database", help="address of a PostgreSQL database (default: DATABASE_URL)")
    chosen = parser.parse_args(arguments)
    try:
        folder = chosen.data or data_folder()
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; has the page been used? Name its folder with --data")
        address = database_address(folder, chosen.database or os.environ.get("DATABASE_URL"))
        asyncio.run(prepare_database(address))
        told = write_pairs(list(pairs(asyncio.run(read_votes(address, folder)))), chosen.out)
        sys.stdout.write(f"{told}\n")
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
