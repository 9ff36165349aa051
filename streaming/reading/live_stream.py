"""The newest entries of one followed stream, in memory for all of its readers on an event loop."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from itertools import islice
from typing import Final

import msgspec

from streaming.entries import StreamChunk, chunk_of
from streaming.errors import InvalidCursor
from streaming.identifiers import FIRST, EntryId, Keys
from streaming.reading.liveness import ProducerWatch

#: Entries of a stream kept in memory for its readers; one that falls behind pages from Redis instead.
RING_ENTRIES: Final = 256


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
        self._ids: deque[EntryId] = deque()
        self._entries: deque[StreamChunk] = deque()
        #: What came last, and the entry before it.
        self._before_newest: EntryId | None = None
        self._newest: list[StreamChunk] = []
        #: Those who wait for something new, each with the time at which it stops waiting.
        self._waiters: dict[asyncio.Future[bool], float] = {}

    def covers(self, cursor: EntryId) -> bool:
        """Whether memory holds everything after the cursor."""
        return cursor >= self.start

    def after(self, cursor: EntryId) -> list[StreamChunk]:
        """The entries after a cursor that is covered."""
        if cursor == self._before_newest:
            # Where almost all readers are.
            return self._newest
        if cursor >= self.tail:
            return []
        return list(islice(self._entries, bisect_right(self._ids, cursor), None))

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
            before, *carried = msgspec.json.decode(message)
            entries = [
                chunk_of(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)))
                for entry_id, fields in zip(carried[::2], carried[1::2], strict=True)
            ]
            newest = entries[-1].id
        except (ValueError, TypeError, AttributeError, IndexError, InvalidCursor):
            # Somebody else's message.
            return False
        if newest <= self.tail:
            return True
        if before != str(self.tail):
            return False
        self.add(entries)
        return True

    def add(self, entries: list[StreamChunk]) -> None:
        """Take entries that were read after ``tail``."""
        self._before_newest, self._newest = self.tail, entries
        for entry in entries:
            self.tail = entry.id
            self._ids.append(self.tail)
            self._entries.append(entry)
        while len(self._entries) > RING_ENTRIES:
            self.start = self._ids.popleft()
            self._entries.popleft()
        self.wake()
