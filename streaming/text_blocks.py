"""Consecutive text entries of a stream, left as they came.

A stream is almost all text, and its entries only pass through: made into chunks one by one they would cost
ten times as much. Reasons and figures: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from streaming.entries import NUMBER_DIGITS, StreamChunk, decode_entry
from streaming.identifiers import EntryId, split_entry_id
from streaming.sse import encode_event, encode_messages

#: An entry as it comes: its id, and ``[field, value, field, value …]``, all of it bytes or all of it text.
RawEntry = Sequence[Any]


class _Form(NamedTuple):
    """How an entry of text begins, what may follow, and how its numbers are written."""

    head: list[Any]
    #: The run, and maybe its attempt.
    tails: tuple[list[Any], ...]
    number: Callable[[int], Any]


_BYTES: Final = _Form(
    [b"text", b"sequence", b"timestamp"], ([], [b"run"], [b"run", b"attempt"]), b"%d".__mod__
)
_TEXT: Final = _Form(["text", "sequence", "timestamp"], ([], ["run"], ["run", "attempt"]), str)
#: Where the head ends.
_OWN: Final = 6


class TextBlock:
    """Text entries of one attempt of a run, whose sequences have no hole. Iterating it gives the chunks."""

    __slots__ = ("_encoded", "_entries", "attempt", "first_sequence", "last", "run")

    #: No end of a run is in it.
    is_terminal: ClassVar = False

    def __init__(self, entries: Sequence[RawEntry]) -> None:
        """Take entries that belong together, one at least."""
        fields, tail = entries[0][1], entries[0][1][_OWN:]
        self.run: str | None = _text(tail[1]) if tail else None
        attempt = tail[3] if tail[2:] else b"1"
        self.attempt = (int(attempt) if _is_number(attempt) else 0) or 1
        self.first_sequence = int(fields[3])
        self.last: EntryId = split_entry_id(entries[-1][0])
        self._entries = entries
        self._encoded: bytes | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[StreamChunk]:
        return (decode_entry(entry_id, fields) for entry_id, fields in self._entries)

    @property
    def next_sequence(self) -> int:
        """What should come after it."""
        return self.first_sequence + len(self._entries)

    @property
    def encoded(self) -> bytes:
        """What it is to a client that speaks server-sent events."""
        if self._encoded is None:
            messages = [(entry_id, fields[1]) for entry_id, fields in self._entries]
            if isinstance(messages[0][0], str):
                self._encoded = b"".join(
                    [encode_event("message", text, entry_id=at) for at, text in messages]
                )
            else:
                self._encoded = encode_messages(messages)
        return self._encoded


#: What a page of a stream consists of.
Part = StreamChunk | TextBlock


def chunks_of(parts: Iterable[Part]) -> Iterator[StreamChunk]:
    """The chunks, one by one."""
    for part in parts:
        if isinstance(part, TextBlock):
            yield from part
        else:
            yield part


def parts_of(entries: Sequence[RawEntry]) -> list[Part]:
    """Put what can stay together into blocks; the rest becomes chunks."""
    if not entries or not isinstance(entries[0][1], list):
        # A driver that has made something else of them.
        return [decode_entry(entry_id, fields) for entry_id, fields in entries]
    head, tails, number = _TEXT if isinstance(entries[0][0], str) else _BYTES
    parts: list[Part] = []
    begin = 0
    following: Any = None
    tail: list[Any] | None = None
    for place, (entry_id, fields) in enumerate(entries):
        # Done for each entry of a replay.
        if fields[3:4] == [following] and fields[_OWN:] == tail and fields[:_OWN:2] == head:
            following = number(int(following) + 1)
            continue
        if begin < place:
            parts.append(TextBlock(entries[begin:place]))
        begin, tail = place, fields[_OWN:]
        if fields[:_OWN:2] == head and tail[::2] in tails and _is_number(fields[3]):
            following = number(int(fields[3]) + 1)
        else:
            parts.append(decode_entry(entry_id, fields))
            begin, tail = place + 1, None
    if begin < len(entries):
        parts.append(TextBlock(entries[begin:]))
    return parts


def _is_number(value: bytes | str) -> bool:
    return len(value) <= NUMBER_DIGITS and value.isascii() and value.isdigit()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
