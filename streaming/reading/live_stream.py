"""The newest entries of one followed stream, in memory for all of its readers on an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import chain
from typing import Any, Final

import msgspec

from streaming.entries import StreamChunk, decode_entry
from streaming.errors import InvalidCursor
from streaming.identifiers import FIRST, EntryId, Keys, parse_entry_id
from streaming.reading.liveness import ProducerWatch
from streaming.text_blocks import Part, block_of, chunks_of, parts_of

#: Entries of a stream kept in memory for its readers; one that falls behind pages from Redis instead.
RING_ENTRIES: Final = 256

#: What a wake-up carries: ids, and fields.
_MESSAGE: Final = msgspec.json.Decoder(list[str | list[str]])


class LiveStream:
    """The newest entries of one followed stream. Covers everything after ``start``."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.start: EntryId = FIRST
        self.tail: EntryId = FIRST
        self.readers = 0
        self.foreign_readers = 0
        self.is_ready = False
        #: One watch for each run that is read (``None``: the latest), shared by its readers.
        self.watches: dict[str | None, ProducerWatch] = {}
        self.preparing = asyncio.Lock()
        #: As they came: the last id of each batch, how many entries it has, and the batch.
        self._batches: deque[tuple[EntryId, int, list[Part]]] = deque()
        self._entries = 0
        #: The newest batch, and the entry before it.
        self._newest: list[Part] = []
        self._before_newest: EntryId | None = None
        #: ``tail`` as text.
        self._tail_text = str(FIRST)
        #: Those who wait for something new, each with the time at which it stops waiting.
        self._waiters: dict[asyncio.Future[bool], float] = {}

    def covers(self, cursor: EntryId) -> bool:
        """Whether memory holds everything after the cursor."""
        return cursor >= self.start

    def after(self, cursor: EntryId) -> list[Part]:
        """The entries after a cursor that is covered."""
        if cursor == self._before_newest:
            # Where almost all readers are.
            return self._newest
        if cursor >= self.tail:
            return []
        batches = [parts for last, _, parts in self._batches if last > cursor]
        # The cursor may lie inside of it.
        begun = [chunk for chunk in chunks_of(batches[0]) if chunk.id > cursor]
        return [*begun, *chain.from_iterable(batches[1:])]

    def wait(self, timeout: float) -> asyncio.Future[bool]:
        """Wait for something new. ``False``: nothing came within ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        # No timer of its own: thousands of readers would set and cancel one with each chunk.
        self._waiters[waiter] = loop.time() + timeout
        return waiter

    def wake(self) -> None:
        """Let all waiting readers look again."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)

    def patrol(self, now: float) -> None:
        """Let those go who have waited long enough, and forget those who have left."""
        over = [waiter for waiter, until in self._waiters.items() if until <= now or waiter.done()]
        for waiter in over:
            del self._waiters[waiter]
            if not waiter.done():
                waiter.set_result(False)

    def take_message(self, message: bytes) -> bool:
        """Take the entries that a wake-up carries. ``False``: the stream has to be read."""
        if not self.is_ready or not message.startswith(b"["):
            return False
        try:
            before, *carried = _MESSAGE.decode(message)
            newest = parse_entry_id(carried[-2])  # type: ignore[arg-type]  # a list raises TypeError
            parts, size = _parts(carried, newest)
        except (msgspec.MsgspecError, InvalidCursor, TypeError, ValueError, IndexError):
            # Somebody else's message.
            return False
        if newest <= self.tail:
            return True
        if before != self._tail_text:
            return False
        self._add(parts, size, newest, carried[-2])  # type: ignore[arg-type]  # see above
        return True

    def add(self, entries: list[StreamChunk]) -> None:
        """Take entries that were read after ``tail``, one at least."""
        newest = entries[-1]
        self._add([*entries], len(entries), newest.id, str(newest.id))

    def _add(self, parts: list[Part], size: int, newest: EntryId, text: str) -> None:
        self._before_newest, self._newest = self.tail, parts
        self.tail, self._tail_text = newest, text
        self._batches.append((newest, size, parts))
        self._entries += size
        while self._entries > RING_ENTRIES and len(self._batches) > 1:
            self.start, gone, _ = self._batches.popleft()
            self._entries -= gone
        self.wake()


def _parts(carried: list[Any], newest: EntryId) -> tuple[list[Part], int]:
    """What a wake-up carries: ids and fields in turns; and how many entries that is.

    Raises:
        InvalidCursor, TypeError, ValueError: it is something else.
    """
    entries = list(zip(carried[::2], carried[1::2], strict=True))
    if len(entries) == 1:
        # Nearly always.
        block = block_of(*entries[0], newest)
        return [decode_entry(*entries[0]) if block is None else block], 1
    for entry_id, _ in entries:
        parse_entry_id(entry_id)
    return parts_of(entries), len(entries)
