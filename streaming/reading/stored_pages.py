"""The stored entries that one read pages through; the next page is on its way while one is sent."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from streaming.cancellation import cancel_and_wait
from streaming.commands import Commands
from streaming.identifiers import EntryId
from streaming.store.stored_entries import FIRST_PART_PAGE, Page, parts_after

#: A reader that takes a page in this time has the next one read ahead. A slower one is to hold no more than
#: the page that it is at.
KEEPS_UP: Final = timedelta(milliseconds=50)


class StoredPages:
    """Pages of one stream, for one reader. Close it."""

    def __init__(self, commands: Commands, stream: str) -> None:
        self._commands = commands
        self._stream = stream
        self._size = FIRST_PART_PAGE
        #: The cursor that the page which is read ahead comes after.
        self._ahead: tuple[EntryId, asyncio.Task[Page]] | None = None
        self._given_at = 0.0

    async def after(self, cursor: EntryId) -> Page:
        """The page after an entry.

        Raises:
            RedisError: Redis is away.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return await self._read(cursor)
        after, task = ahead
        try:
            page = await task
        finally:
            await cancel_and_wait({task})
        return page if after == cursor else await self._read(cursor)

    def replayed(self, page: Page) -> None:
        """Begin to read what comes after a page that is given to the reader now."""
        before, self._given_at = self._given_at, asyncio.get_running_loop().time()
        self._size = page.next_count
        if page.is_full and self._given_at - before < KEEPS_UP.total_seconds():
            self._ahead = (page.last, asyncio.create_task(self._read(page.last), name="page-ahead"))

    async def aclose(self) -> None:
        """Read no more."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await cancel_and_wait({ahead[1]})

    async def _read(self, cursor: EntryId) -> Page:
        return await parts_after(self._commands, self._stream, cursor, count=self._size)
