"""Consecutive text entries of a stream, left as they came from the store.

A replay is almost all text, and its entries only pass through: made into chunks one by one they would cost
ten times as much. Reasons and figures: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final

from streaming.entries import NUMBER_DIGITS, StreamChunk, decode_entry
from streaming.identifiers import EntryId
from streaming.sse import encode_messages

#: How an entry of text begins; the run, and maybe its attempt, come after.
_HEAD: Final = [b"text", b"sequence", b"timestamp"]
_TAILS: Final[tuple[list[bytes], ...]] = ([], [b"run"], [b"run", b"attempt"])
#: Names and values of the head.
_OWN: Final = 6

#: An entry as the driver's parser gives it: id, and ``[field, value, field, value …]``.
RawEntry = Sequence[Any]


class TextBlock:
    """Text entries of one attempt of a run, whose sequences have no hole. Iterating it gives the chunks."""

    __slots__ = ("_encoded", "_entries", "attempt", "first_sequence", "last", "run")

    #: No end of a run is in it.
    is_terminal: ClassVar = False

    def __init__(self, entries: Sequence[RawEntry]) -> None:
        first = decode_entry(*entries[0])
        self.run = first.run
        self.attempt = first.attempt
        self.first_sequence = first.sequence or 0
        self.last: EntryId = decode_entry(*entries[-1]).id
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
            self._encoded = encode_messages([(entry_id, fields[1]) for entry_id, fields in self._entries])
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
    if entries and not isinstance(entries[0][1], list):
        # A driver that has made something else of them.
        return [decode_entry(entry_id, fields) for entry_id, fields in entries]
    parts: list[Part] = []
    begin, following = 0, b""
    tail: list[Any] | None = None
    for place, (entry_id, fields) in enumerate(entries):
        # Done for each entry of a replay.
        if fields[3:4] == [following] and fields[_OWN:] == tail and fields[:_OWN:2] == _HEAD:
            following = b"%d" % (int(following) + 1)
            continue
        if begin < place:
            parts.append(TextBlock(entries[begin:place]))
        begin, tail = place, fields[_OWN:]
        if fields[:_OWN:2] == _HEAD and tail[::2] in _TAILS and _is_number(fields[3]):
            following = b"%d" % (int(fields[3]) + 1)
        else:
            parts.append(decode_entry(entry_id, fields))
            begin, tail = place + 1, None
    if begin < len(entries):
        parts.append(TextBlock(entries[begin:]))
    return parts


def _is_number(value: bytes) -> bool:
    return len(value) <= NUMBER_DIGITS and value.isdigit()
