"""The conversation as a service: one object that answers requests, one turn at a time.

In: `ChatRequest`s. Out: streams of `ChatEvent`s, or the finished turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import ContextFullError, VargptProcessor
from vargpt.chat.batch import Batch
from vargpt.chat.generation import make_turn, reply
from vargpt.chat.prefixes import Prefixes
from vargpt.chat.requests import check_request, layouts
from vargpt.chat.turns import Turn, Vocabulary
from vargpt.loading.adapters import Adapters, read_card
from vargpt.loading.models import model_hash
from vargpt.loading.packing import compile_blocks, pack
from vargpt.loading.quantization import Quantization
from vargpt.published.families import load, resolve_model
from vargpt.types import ChatEvent, ChatRequest, ImageSampling, Message, RequestError, TurnFinished

__all__ = ["ChatEngine", "ContextFullError"]

POLL_SECONDS = 0.05  # how often a waiting turn looks whether it was cancelled


class ChatEngine:
    """Answers chat requests with one model; safe to share between threads, which then wait for one another.

    Args:
        model: put into evaluation mode.
        processor: the model's.
        model_name: for people: file metadata, the page's title.
        model_hash: of the weights, for file metadata; adapters are compared with it.
    """

    def __init__(
        self, model: VARGPT, processor: VargptProcessor, model_name: str = "vargpt", model_hash: str | None = None
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.model_name = model_name
        self.model_hash = model_hash
        self.adapters = Adapters(model, model_name, model_hash)
        self._vocabulary = Vocabulary(processor, model.config.text_config.vocab_size)
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantization: Quantization | None = None,
        offload: bool = False,
        adapters: Sequence[str | Path] = (),
        packed: bool = False,
        compiled: bool = False,
    ) -> ChatEngine:
        """An engine for a model folder or a hub id; None is the shipped nano. The rest is `load`'s.

        The adapters in the folders `adapters` are on in every request that does not choose for itself. `packed` lays
        whole float32 weights out for this CPU: quicker, but they can no longer be trained or saved.
        `compiled` has torch.compile fuse the generator's blocks when they first draw, which takes a minute or more.

        Raises:
            FileNotFoundError: there is no such model.
            ValueError: the folder does not hold what belongs together, an adapter is of another model, the device is
                not there, or options exclude one another.
            ImportError: `quantization` without bitsandbytes, or adapters without peft.
        """
        folder = resolve_model(path)
        for adapter in adapters:  # mistakes show before the model is loaded
            read_card(Path(adapter))
        if offload and adapters:
            raise ValueError("adapters need the layers where they are: leave either the adapters or offloading out")
        if packed and (quantization or offload or adapters):
            raise ValueError("packed weights are whole ones, without quantisation, offloading or adapters")
        if compiled and (packed or quantization or offload or adapters):
            raise ValueError("only whole weights are compiled, without packing, quantisation, offloading or adapters")
        model, processor = load(folder, device, dtype, quantization, offload)
        if packed:
            pack(model)
        if compiled:
            compile_blocks(model.generator)
        engine = cls(model, processor, folder.resolve().name, model_hash(folder))
        engine.adapters.default = tuple(engine.adapters.load(adapter) for adapter in adapters)
        return engine

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of every size that can be drawn, the default first."""
        default = self.model.config.layout()
        return sorted(
            ((layout.height, layout.width) for layout in layouts(self.model.config)),
            key=lambda size: (size != (default.height, default.width), size),
        )

    def image_sampling(self, **changes: Any) -> ImageSampling:
        """How this model's pictures are drawn by default, with some fields changed."""
        return replace(self.model.config.sampling(), **changes)

    def stream(
        self, request: ChatRequest, cancel: threading.Event | None = None, previews: bool = True
    ) -> Iterator[ChatEvent]:
        """The events of one turn as they happen; the last one is `TurnFinished`.

        The turn begins with the first event that is read, and holds the engine until it ends or the iterator is closed
        (a `for` loop that is left closes it).

        Args:
            request: the conversation and how to answer it.
            cancel: set it from any thread, and the turn ends with reason "cancelled" and what was finished until then.
            previews: yield every scale of a forming picture.

        Raises:
            ContextFullError: with the first event, if the conversation is too long: drop its oldest pictures.
            RequestError: at once, if the request cannot be answered; the message says what is allowed.
        """
        return self._stream(self._checked(request), cancel, previews)

    def reply(self, request: ChatRequest, cancel: threading.Event | None = None) -> TurnFinished:
        """The finished turn, without previews on the way."""
        *_, last = self.stream(request, cancel, previews=False)
        assert isinstance(last, TurnFinished), "every stream ends with TurnFinished"
        return last

    def reply_batch(self, requests: Sequence[ChatRequest]) -> list[TurnFinished]:
        """Several conversations answered together, one batch for those with the same adapters; much faster than singly.

        Raises:
            ContextFullError: one of the conversations is too long.
            RequestError: one of the requests cannot be answered; the message says which.
        """
        rows_of: dict[tuple[str, ...], list[int]] = {}
        checked: list[ChatRequest] = []
        for number, request in enumerate(requests):
            try:
                checked.append(self._checked(request))
            except RequestError as error:
                raise RequestError(f"request {number}: {error}") from None
            rows_of.setdefault(self.adapters.chosen(checked[-1].adapter), []).append(number)
        finished: dict[int, TurnFinished] = {}
        for names, rows in rows_of.items():
            batch = [checked[row] for row in rows]
            with self.alone(names):
                for place, event in reply(
                    self.model, self.processor, batch, previews=False, vocabulary=self._vocabulary
                ):
                    if isinstance(event, TurnFinished):
                        finished[rows[place]] = event
        return [finished[row] for row in range(len(requests))]

    # -- for who schedules turns of his own ------------------------------------------------------------------------

    def turn(
        self,
        index: int,
        request: ChatRequest,
        previews: bool = True,
        cancel: threading.Event | None = None,
        owner: str = "",
    ) -> Turn:
        """A turn for `Batch.add`, see `Turn`.

        Raises:
            RequestError: the request cannot be answered; the message says what is allowed.
        """
        checked = self._checked(request)
        whose = f"{owner} {checked.adapter}"  # what was read with other adapters is of no use
        return make_turn(index, checked, self.model, self._vocabulary, previews, cancel, whose)

    def batch(self, patience: int | None = None, prefixes: Prefixes | None = None) -> Batch:
        """An empty batch for turns of this engine; call its methods under `alone` only."""
        return Batch(self.model, self.processor, self._vocabulary, patience, prefixes=prefixes)

    @contextmanager
    def alone(self, adapters: Sequence[str] = ()) -> Iterator[None]:
        """The model with these adapters on, for nobody else meanwhile."""
        with self._turn, self.adapters.switched_on(adapters):
            yield

    def _checked(self, request: ChatRequest) -> ChatRequest:
        """The same request with its adapters by name, if it can be answered."""
        check_request(request, self.model.config)
        try:
            self.model.generator.check_sampling(request.image_sampling or self.model.config.sampling())
            return replace(request, adapter=self.adapters.chosen(request.adapter))
        except ValueError as error:  # a setting that this generator cannot use, a name that no adapter has
            raise RequestError(str(error)) from None

    def _stream(self, request: ChatRequest, cancel: threading.Event | None, previews: bool) -> Iterator[ChatEvent]:
        while not self._turn.acquire(timeout=-1 if cancel is None else POLL_SECONDS):
            if cancel is not None and cancel.is_set():
                yield TurnFinished(Message("assistant", ()), "cancelled")
                return
        try:
            events = reply(
                self.model, self.processor, [request], previews=previews, cancel=cancel, vocabulary=self._vocabulary
            )
            adapted = self.adapters.switched_on(self.adapters.chosen(request.adapter))
            with adapted, closing(events):  # type: ignore[type-var]
                for _, event in events:
                    yield event
        finally:
            self._turn.release()
