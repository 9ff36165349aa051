"""The newest entries of one followed stream, in memory for all of its readers on an event loop."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from itertools import chain, islice
from typing import Final, cast

import msgspec

from streaming.errors import InvalidCursor
from streaming.identifiers import FIRST, EntryId, Keys, parse_entry_id
from streaming.reading.liveness import ProducerWatch
from streaming.text_blocks import Part, TextBlock, chunks_of, parts_of

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
        #: Batches as they came, the last id of each, and how many entries they have.
        self._batches: deque[list[Part]] = deque()
        self._lasts: deque[EntryId] = deque()
        self._sizes: deque[int] = deque()
        self._entries = 0
        #: The entry before the newest batch.
        self._before_newest: EntryId | None = None
        #: Those who wait for something new, each with the time at which it stops waiting.
        self._waiters: dict[asyncio.Future[bool], float] = {}

    def covers(self, cursor: EntryId) -> bool:
        """Whether memory holds everything after the cursor."""
        return cursor >= self.start

    def after(self, cursor: EntryId) -> list[Part]:
        """The entries after a cursor that is covered."""
        if cursor == self._before_newest:
            # Where almost all readers are.
            return self._batches[-1]
        if cursor >= self.tail:
            return []
        first = bisect_right(self._lasts, cursor)
        batches = list(islice(self._batches, first, None))
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
            ids = [parse_entry_id(cast("str", entry_id)) for entry_id in carried[::2]]
            parts = parts_of(list(zip(carried[::2], carried[1::2], strict=True)))
            newest = ids[-1]
        except (msgspec.MsgspecError, InvalidCursor, TypeError, ValueError, IndexError):
            # Somebody else's message.
            return False
        if newest <= self.tail:
            return True
        if before != str(self.tail):
            return False
        self.add(parts, newest)
        return True

    def add(self, parts: list[Part], newest: EntryId) -> None:
        """Take entries that were read after ``tail``, the last of which is ``newest``."""
        self._before_newest, self.tail = self.tail, newest
        size = sum(len(part) if isinstance(part, TextBlock) else 1 for part in parts)
        self._batches.append(parts)
        self._lasts.append(newest)
        self._sizes.append(size)
        self._entries += size
        while self._entries > RING_ENTRIES and len(self._batches) > 1:
            self._batches.popleft()
            self.start = self._lasts.popleft()
            self._entries -= self._sizes.popleft()
        self.wake()
