"""Consecutive text entries of a stream, left as they came.

A stream is almost all text, and its entries only pass through: made into chunks one by one they would cost
ten times as much. Reasons and figures: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

from streaming.entries import NUMBER_DIGITS, StreamChunk, as_text, decode_entry
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


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a run stands. Each chunk makes one: the garbage collector need not know."""

    attempt: int
    #: What should come next.
    sequence: int


class TextBlock:
    """Text entries of one attempt of a run, whose sequences have no hole. Iterating it gives the chunks."""

    __slots__ = ("_encoded", "_entries", "attempt", "end", "first_sequence", "last", "run")

    #: No end of a run is in it.
    is_terminal: ClassVar = False

    def __init__(
        self, entries: Sequence[RawEntry], run: str | None, attempt: int, sequence: int, last: EntryId
    ) -> None:
        """Take entries that belong together: ``parts_of`` and ``block_of`` know whether they do."""
        self.run = run
        self.attempt = attempt
        #: Of the first entry.
        self.first_sequence = sequence
        #: Where the run stands behind it; all of its readers keep this one.
        self.end: Final = Place(attempt, sequence + len(entries))
        #: The last entry's id.
        self.last = last
        self._entries = entries
        self._encoded: bytes | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[StreamChunk]:
        return (decode_entry(entry_id, fields) for entry_id, fields in self._entries)

    @property
    def encoded(self) -> bytes:
        """What it is to a client that speaks server-sent events."""
        if self._encoded is None:
            if isinstance(self._entries[0][0], str):
                self._encoded = b"".join(
                    [encode_event("message", fields[1], entry_id=at) for at, fields in self._entries]
                )
            else:
                self._encoded = encode_messages([(at, fields[1]) for at, fields in self._entries])
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
            parts.append(_block(entries[begin:place]))
        begin, tail = place, fields[_OWN:]
        if fields[:_OWN:2] == head and tail[::2] in tails and _is_number(fields[3]):
            following = number(int(fields[3]) + 1)
        else:
            parts.append(decode_entry(entry_id, fields))
            begin, tail = place + 1, None
    if begin < len(entries):
        parts.append(_block(entries[begin:]))
    return parts


def block_of(entry_id: str, fields: list[str], last: EntryId) -> TextBlock | None:
    """An entry in text, whose id ``last`` is, as a block of its own; ``None``: it is no text of a run."""
    tail = fields[_OWN:]
    if fields[:_OWN:2] != _TEXT.head or tail[::2] not in _TEXT.tails or not _is_number(fields[3]):
        return None
    attempt = int(tail[3]) if tail[2:] and _is_number(tail[3]) else 1
    return TextBlock([(entry_id, fields)], tail[1] if tail else None, attempt or 1, int(fields[3]), last)


def _block(entries: Sequence[RawEntry]) -> TextBlock:
    fields = entries[0][1]
    tail = fields[_OWN:]
    attempt = int(tail[3]) if tail[2:] and _is_number(tail[3]) else 1
    run = as_text(tail[1]) if tail else None
    return TextBlock(entries, run, attempt or 1, int(fields[3]), split_entry_id(entries[-1][0]))


def _is_number(value: bytes | str) -> bool:
    return len(value) <= NUMBER_DIGITS and value.isascii() and value.isdigit()
