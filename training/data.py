"""Conversations to batches: a stream of samples by number becomes length-grouped batches that any step can start from.

In: `make_sample(sample_id) -> Sample` and a processor. Out: dicts of tensors: ids, mask, labels, the input pictures and
the drawn pictures as bytes (tokens and patches are made on the training device, see supervised.py), and which is which.

Samples are taken in pools; a pool is sorted by length and cut into a fixed number of batches of about equal work, so
that batch i depends on i alone and a resumed run sees what an uninterrupted one would have seen. Several processes, and
micro-batches, divide the rows of the same batch among them; what is drawn by chance for a picture is keyed by its
sample, so that neither changes what is learnt.

Shape legend: B rows, T tokens, I input pictures, N drawn pictures.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from vargpt.assistant.processor import IGNORE_INDEX, EncodedConversation, VargptProcessor, pad
from vargpt.types import ImagePart, Message

MakeMessages = Callable[[int], Sequence[Message]]
Batch = dict[str, Tensor]
PICTURES_OF_A_ROW = 1000  # more than a conversation has
LENGTH_STEP = 32  # rows are this many tokens long, or a multiple: a CPU prepares its kernels once per size


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How samples become batches. `read_back_rate` is the share of samples that end with a picture in which that
    picture is also read back through the ViT and the turn is closed (the others stop after the slots: cheaper). Of a
    long conversation at most `max_drawn` pictures, the last one among them, are learnt; the others are only read back.
    With 0 none is learnt.
    In one pool of `all_slots_every` do all slots of a picture pass the language model, in the others the first alone.
    `text_only` leaves all pictures out. `texts_per_pool` conversations without pictures, of a stream of their own, join
    every pool: they cost a twentieth of the others and keep language learning.
    """

    pool_size: int = 256
    texts_per_pool: int = 0
    batches_per_pool: int = 8
    read_back_rate: float = 0.2
    max_drawn: int = 2
    all_slots_every: int = 1
    text_only: bool = False
    generator_cost: float = 1.5  # work of an image token in the generator, in tokens of the language model
    num_workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_workers not in (0, 1):
            raise ValueError(
                f"one process (num_workers=1) makes batches beside training, or none (0); got {self.num_workers}: "
                "each of several would have to make every pool whole"
            )


@dataclass(frozen=True)
class Share:
    """Which rows of every batch a process takes, and in how many micro-batches: all of them in one by default."""

    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def __post_init__(self) -> None:
        if self.accumulation < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(f"accumulation is at least 1 and rank below world_size, got {self}")


@dataclass(frozen=True)
class Row:
    """A conversation as ids and the number of its sample. A `spare` row is read, but nothing is learnt from it."""

    encoded: EncodedConversation
    sample_id: int
    spare: bool = False

    @property
    def labels(self) -> list[int]:
        return [IGNORE_INDEX] * len(self.encoded.labels) if self.spare else self.encoded.labels

    @property
    def num_learnt(self) -> int:
        """Labelled tokens; the first of a row is predicted from nothing and does not count."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    @property
    def kinds(self) -> set[str]:
        """Which organs besides the language model it needs."""
        return {name for name in ("drawn", "pictures") if getattr(self.encoded, name)}


def cost(encoded: EncodedConversation, num_tokens: int, generator_cost: float) -> float:
    """Work of one row, in tokens of the language model; `num_tokens` of a drawn picture."""
    return len(encoded.input_ids) + len(encoded.drawn) * num_tokens * generator_cost


def cut_evenly(costs: Sequence[float], num_batches: int) -> list[list[int]]:
    """Indices sorted by cost and cut into `num_batches` runs of about equal total cost, none of them empty."""
    order = sorted(range(len(costs)), key=lambda index: costs[index])
    total, done = sum(costs), 0.0
    batches: list[list[int]] = [[] for _ in range(num_batches)]
    for position, index in enumerate(order):
        # the last samples must reach the batches that are still empty
        reserved = num_batches - 1 - (len(order) - 1 - position)
        batch = min(num_batches - 1, int(done / total * num_batches))
        batches[max(batch, reserved, 0)].append(index)
        done += costs[index]
    return [batch for batch in batches if batch]


def image_bytes(parts: Sequence[ImagePart], processor: VargptProcessor) -> Tensor:
    """Pictures as uint8 "N 3 H W", fitted on the model's page; an empty tensor for none."""
    if not parts:
        return torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
    array = np.stack([np.asarray(processor.fit(part.image)) for part in parts])
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def micro_batches(rows: Sequence[Row], share: Share) -> list[list[Row]]:
    """The rows of one batch that a process takes, micro-batch by micro-batch.

    All processes pass through the same organs at the same time, as sharded weights demand: where a part has no row, or
    no picture of a kind that another process has, it gets a spare one.
    """
    count = share.world_size * share.accumulation
    parts = [list(rows[first::count]) for first in range(count)]
    mine = []
    for number in range(share.accumulation):
        together = parts[number * share.world_size : (number + 1) * share.world_size]
        wanted = {kind for part in together for row in part for kind in row.kinds}
        part = together[share.rank]
        for kind in sorted(wanted - {kind for row in part for kind in row.kinds}):
            if not any(kind in row.kinds for row in part):
                part.append(dataclasses.replace(next(row for row in rows if kind in row.kinds), spare=True))
        mine.append(part or [dataclasses.replace(rows[0], spare=True)])
    return mine


def collate(rows: Sequence[Row], processor: VargptProcessor, whole: Sequence[Row] | None = None) -> Batch:
    """Right-padded ids and labels, and the pictures in order of appearance.

    `input_drawn` "I" holds, for every input picture, the index of the drawn picture that it is (read back), or -1.
    `input_seeds` "I" and `drawn_seeds` "N" key what is left to chance. `num_text_tokens` and `num_pictures` count what
    is learnt in the `whole` batch that the rows are part of (default: they are the whole).
    """
    whole = rows if whole is None else whole
    encoded = [row.encoded for row in rows]
    pictures = [part for row in encoded for part in row.pictures]
    drawn = [part for row in encoded for part in row.drawn]
    drawn_index = {id(part): index for index, part in enumerate(drawn)}
    uploaded = [part for part in pictures if id(part) not in drawn_index]
    return {
        "input_ids": pad([row.input_ids for row in encoded], processor.special.end_of_text, multiple=LENGTH_STEP),
        "attention_mask": pad([[1] * len(row.input_ids) for row in encoded], 0, multiple=LENGTH_STEP).bool(),
        "labels": pad([row.labels for row in rows], IGNORE_INDEX, multiple=LENGTH_STEP),
        "drawn_images": image_bytes(drawn, processor),
        "uploaded_images": image_bytes(uploaded, processor),
        "input_drawn": torch.tensor([drawn_index.get(id(part), -1) for part in pictures], dtype=torch.long),
        "input_seeds": picture_seeds(rows, "pictures"),
        "drawn_seeds": picture_seeds(rows, "drawn"),
        "learnt_rows": torch.tensor([not row.spare for row in rows], dtype=torch.bool),
        "drawn_learnt": torch.tensor([not row.spare for row in rows for _ in row.encoded.drawn], dtype=torch.bool),
        "num_text_tokens": torch.tensor(float(sum(row.num_learnt for row in whole))),
        "num_pictures": torch.tensor(float(sum(len(row.encoded.drawn) for row in whole))),
    }


def picture_seeds(rows: Sequence[Row], kind: str) -> Tensor:
    """A number for every picture of the rows ("drawn" or "pictures"), by its sample and its place there."""
    numbers = [
        row.sample_id * PICTURES_OF_A_ROW + place for row in rows for place in range(len(getattr(row.encoded, kind)))
    ]
    return torch.tensor(numbers, dtype=torch.long)


class Conversations(IterableDataset):
    """Batches from a given step on, for one DataLoader worker."""

    def __init__(
        self,
        make_messages: MakeMessages,
        processor: VargptProcessor,
        num_slots: int,
        settings: BatchSettings,
        start_step: int = 0,
        make_texts: MakeMessages | None = None,
        share: Share = Share(),
    ) -> None:
        if settings.texts_per_pool and make_texts is None:
            raise ValueError(
                f"{settings.texts_per_pool} texts_per_pool need the stream `make_texts` that they come from"
            )
        self.make_messages, self.processor, self.num_slots = make_messages, processor, num_slots
        self.settings, self.start_step, self.make_texts, self.share = settings, start_step, make_texts, share

    def __iter__(self) -> Iterator[Batch]:
        pool, skip = divmod(self.start_step, self.settings.batches_per_pool)
        while True:
            for rows in self.pool_rows(pool)[skip:]:
                yield from self.parts(rows)
            pool, skip = pool + 1, 0

    def pool_batches(self, pool: int) -> list[Batch]:
        """What a process learns from one pool: the micro-batches of all its batches."""
        return [part for rows in self.pool_rows(pool) for part in self.parts(rows)]

    def parts(self, rows: Sequence[Row]) -> list[Batch]:
        """The micro-batches that a process makes of a batch."""
        return [collate(part, self.processor, rows) for part in micro_batches(rows, self.share)]

    def pool_rows(self, pool: int) -> list[list[Row]]:
        """The batches of one pool, in an order of its own."""
        settings, rng = self.settings, random.Random(f"{self.settings.seed}-{pool}")
        num_slots = 1 if (pool + 1) % settings.all_slots_every else self.num_slots
        first = pool * settings.pool_size
        rows = []
        for sample_id in range(first, first + settings.pool_size):
            cut = rng.random() >= settings.read_back_rate
            messages = self.make_messages(sample_id)
            with_slots = self.learnt_pictures(messages, rng)
            encoded = self.processor.conversation_ids(
                messages, num_slots, cut_last_picture=cut, with_slots=with_slots, text_only=settings.text_only
            )
            rows.append(Row(encoded, sample_id))
        if self.make_texts is not None:
            count = settings.texts_per_pool
            for text_id in range(pool * count, (pool + 1) * count):
                text = self.make_texts(text_id)
                rows.append(Row(self.processor.conversation_ids(text, num_slots, text_only=True), text_id))
        costs = [cost(row.encoded, self.num_slots, settings.generator_cost) for row in rows]
        groups = cut_evenly(costs, settings.batches_per_pool)
        rng.shuffle(groups)
        return [[rows[index] for index in group] for group in groups]

    def learnt_pictures(self, messages: Sequence[Message], rng: random.Random) -> set[int]:
        """Which drawn pictures get slots: the last one and others by chance, `max_drawn` at most."""
        if self.settings.max_drawn == 0:
            return set()
        count = sum(len(message.images) for message in messages if message.role == "assistant")
        others = rng.sample(range(count - 1), min(max(count - 1, 0), self.settings.max_drawn - 1)) if count else []
        return {*others, count - 1}


def loader(dataset: Conversations) -> DataLoader:
    """Batches made ahead in another process."""
    workers = dataset.settings.num_workers
    return DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=16 if workers else None)
