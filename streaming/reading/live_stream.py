"""The newest entries of one followed stream, in memory for all of its readers on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final

import msgspec

from streaming.entries import as_text, decode_entry, flat_fields
from streaming.errors import InvalidCursor
from streaming.identifiers import FIRST, EntryId, Keys, parse_entry_id, split_entry_id
from streaming.reading.liveness import ProducerWatch
from streaming.text_blocks import Part, TextBlock, block_of, chunks_of, parts_of

#: Entries of a stream kept in memory while a reader does not have them; one that falls further behind pages
#: from Redis instead.
RING_ENTRIES: Final = 256

#: What a wake-up carries: ids, and fields.
_MESSAGE: Final = msgspec.json.Decoder(list[str | list[str]])

#: The length of one that carries one entry, as nearly all do.
_ONE_ENTRY: Final = 3

#: Gives its reader text that comes while it waits, by the loop's clock. ``False``: it has to look by itself.
Take = Callable[[TextBlock, float], bool]


class _Waiter:
    """A reader that has all there is."""

    __slots__ = ("_take", "_timeout", "_until", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, take: Take | None) -> None:
        #: Whether something came that the reader is to look at.
        self.woken: asyncio.Future[bool] = loop.create_future()
        self._take = take
        self._timeout = timeout
        self._until = loop.time() + timeout

    def takes(self, block: TextBlock, now: float) -> bool:
        """Whether the reader has got the block and waits on."""
        if self._take is None or self.woken.done():
            return False
        try:
            taken = self._take(block, now)
        except Exception:  # noqa: BLE001 - it is raised again where the reader looks by itself
            return False
        self._until = now + self._timeout
        return taken

    def wake(self, *, something_came: bool) -> None:
        if not self.woken.done():
            self.woken.set_result(something_came)

    def is_over(self, now: float) -> bool:
        return self._until <= now or self.woken.done()


class LiveStream:
    """The newest entries of one followed stream. Covers everything after ``start``."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.start: EntryId = FIRST
        self.tail: EntryId = FIRST
        #: The same as text.
        self.tail_text = str(FIRST)
        self.readers = 0
        self.foreign_readers = 0
        self.is_ready = False
        #: Whether something was heard of it before.
        self.is_woken_early = False
        #: Whether who appends was heard of, and has not been silent since.
        self.publishes = False
        #: When something came last, or was asked for, by the loop's clock.
        self.stirred_at = 0.0
        #: One watch for each run that is read (``None``: the latest), shared by its readers.
        self.watches: dict[str | None, ProducerWatch] = {}
        self.preparing = asyncio.Lock()
        #: As they came: the last id of each batch, how many entries it has, and the batch.
        self._batches: list[tuple[EntryId, int, list[Part]]] = []
        self._entries = 0
        self._waiters: list[_Waiter] = []

    @property
    def is_foreign(self) -> bool:
        """Whether somebody may append without publishing, as far as is known."""
        # One that is not ready would be read from its beginning, while it is looked up where it stands.
        return self.is_ready and self.foreign_readers > 0 and not self.publishes

    def begin_after(self, entry_id: EntryId) -> None:
        """Cover what comes after the newest entry that is stored."""
        self.start = self.tail = entry_id
        self.tail_text = str(entry_id)

    def covers(self, cursor: EntryId) -> bool:
        """Whether memory holds everything after the cursor."""
        return cursor >= self.start

    def after(self, cursor: EntryId) -> list[Part]:
        """The entries after a cursor that is covered."""
        if not self._batches or cursor >= self.tail:
            return []
        before_newest = self._batches[-2][0] if len(self._batches) > 1 else self.start
        if cursor == before_newest:
            # Where almost all readers are.
            return self._batches[-1][2]
        batches = [parts for last, _, parts in self._batches if last > cursor]
        # The cursor may lie inside of it.
        begun = [chunk for chunk in chunks_of(batches[0]) if chunk.id > cursor]
        return [*begun, *chain.from_iterable(batches[1:])]

    def wait(self, timeout: float, take: Take | None = None) -> asyncio.Future[bool]:
        """Wait for something new. ``False``: nothing came within ``timeout`` seconds.

        Args:
            timeout: Of silence.
            take: Is given what comes meanwhile, for a reader that has all up to ``tail``: to wake its task
                for each chunk costs more than the rest.
        """
        # No timer of its own: thousands of readers would set and cancel one with each chunk.
        waiter = _Waiter(asyncio.get_running_loop(), timeout, take)
        self._waiters.append(waiter)
        self._forget_if_all_wait()
        return waiter.woken

    def wake(self) -> None:
        """Let all waiting readers look again."""
        self._let_go(set(self._waiters), something_came=True)

    def let_go(self) -> None:
        """Let all waiting readers see what has become of their run."""
        self._let_go(set(self._waiters), something_came=False)

    def patrol(self, now: float) -> None:
        """Let those go who have waited long enough, and forget those who have left."""
        leaving = {waiter for waiter in self._waiters if waiter.is_over(now)}
        self._let_go(leaving, something_came=False)

    def take_message(self, message: bytes) -> bool:
        """Take the entries that a wake-up carries. ``False``: the stream has to be read."""
        if not self.is_ready or not message.startswith(b"["):
            return False
        try:
            told = _MESSAGE.decode(message)
            newest = parse_entry_id(told[-2])  # type: ignore[arg-type]  # a list raises TypeError
            parts, size = _parts(told, newest)
        except (msgspec.MsgspecError, InvalidCursor, TypeError, ValueError, IndexError):
            # Somebody else's message.
            return False
        if newest <= self.tail:
            return True
        if told[0] != self.tail_text:
            return False
        self._add(parts, size, newest, told[-2])  # type: ignore[arg-type]  # see above
        return True

    def take_stored(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Take entries as Redis gives them. Some may be known: a message or another read has brought them."""
        fresh = [
            (entry_id, flat_fields(fields))
            for entry_id, fields in entries
            if split_entry_id(entry_id) > self.tail
        ]
        if fresh:
            newest = as_text(fresh[-1][0])
            self._add(parts_of(fresh), len(fresh), split_entry_id(newest), newest)

    def _add(self, parts: list[Part], size: int, newest: EntryId, text: str) -> None:
        now = self.stirred_at = asyncio.get_running_loop().time()
        self.tail, self.tail_text = newest, text
        block = parts[0] if len(parts) == 1 and isinstance(parts[0], TextBlock) else None
        leaving = set(self._waiters) if block is None else self._refusing(block, now)
        if not leaving and not self._batches and len(self._waiters) >= self.readers:
            # Nearly always: all readers have it.
            self.start = newest
            return
        self._batches.append((newest, size, parts))
        self._entries += size
        while self._entries > RING_ENTRIES and len(self._batches) > 1:
            self.start, gone, _ = self._batches.pop(0)
            self._entries -= gone
        self._let_go(leaving, something_came=True)
        self._forget_if_all_wait()

    def _refusing(self, block: TextBlock, now: float) -> set[_Waiter]:
        """Give a block to those who wait. Returns who has to look for it."""
        refusing: set[_Waiter] = set()
        for waiter in self._waiters:
            if not waiter.takes(block, now):
                refusing.add(waiter)
        return refusing

    def _let_go(self, leaving: set[_Waiter], *, something_came: bool) -> None:
        if leaving:
            self._waiters = [waiter for waiter in self._waiters if waiter not in leaving]
        for waiter in leaving:
            waiter.wake(something_came=something_came)

    def _forget_if_all_wait(self) -> None:
        """Keep nothing that all readers have: of thousands of streams it would be most of the memory."""
        if self._batches and len(self._waiters) >= self.readers:
            self._batches.clear()
            self._entries = 0
            self.start = self.tail


def _parts(told: list[Any], newest: EntryId) -> tuple[list[Part], int]:
    """What a wake-up carries after its first id: ids and fields in turns; and how many entries that is.

    Raises:
        InvalidCursor, TypeError, ValueError: it is something else.
    """
    if len(told) == _ONE_ENTRY:
        block = block_of(told[1], told[2], newest)
        return [decode_entry(told[1], told[2]) if block is None else block], 1
    entries = list(zip(told[1::2], told[2::2], strict=True))
    for entry_id, _ in entries:
        parse_entry_id(entry_id)
    return parts_of(entries), len(entries)
