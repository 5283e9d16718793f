"""Token ids to text while they arrive, and events to the message they amount to.

In: ids of a byte-level vocabulary, one at a time. Out: text deltas that never hold half a character and whose
concatenation is the text of all ids decoded at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from vargpt.types import ChatEvent, ImageFinished, ImagePart, Message, Part, TextDelta, TextPart


def byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's), as character -> byte.

    Printable Latin-1 characters stand for themselves; the other 68 bytes take the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return alphabet


def vocabulary_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes of every token id, "V"; special tokens are empty, ids without a token too.

    Raises:
        ValueError: the vocabulary is not byte-level.
    """
    alphabet = byte_alphabet()
    added = tokenizer.added_tokens_decoder
    table = [b""] * len(tokenizer)
    for token, token_id in tokenizer.get_vocab().items():
        if token_id in added:
            table[token_id] = b"" if added[token_id].special else token.encode()
        elif set(token) <= alphabet.keys():
            table[token_id] = bytes(alphabet[character] for character in token)
        else:
            raise ValueError(f"text can be streamed from byte-level vocabularies only; token {token!r} is not of one")
    return table


class TextStream:
    """Decodes UTF-8 that arrives in pieces cut anywhere. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self.table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The characters that this id completes; "" while one is unfinished."""
        return self._decoder.decode(self.table[token_id] if token_id < len(self.table) else b"")

    def flush(self) -> str:
        """What is left where a text ends: "" or U+FFFD. The stream can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class MessageBuilder:
    """Folds the events of one turn into the assistant's message, in the order in which they came."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def add(self, event: ChatEvent) -> None:
        if isinstance(event, ImageFinished):
            self._parts.append(event.part)
        elif isinstance(event, TextDelta) and event.text:
            last = self._parts[-1] if self._parts else None
            if isinstance(last, TextPart):
                self._parts[-1] = TextPart(last.text + event.text)
            else:
                self._parts.append(TextPart(event.text))

    @property
    def images(self) -> list[ImagePart]:
        return [part for part in self._parts if isinstance(part, ImagePart)]

    def message(self) -> Message:
        return Message("assistant", tuple(self._parts))
