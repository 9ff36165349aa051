"""Reads stored entries of a stream: pages and single ones."""

from __future__ import annotations

from typing import Any, Final, cast

from redis.asyncio import Redis

from streaming.entries import StreamChunk, decode_entry
from streaming.identifiers import EntryId

#: Entries of one page: large enough that round trips don't count, small enough for memory.
PAGE: Final = 500


def decode_page(reply: object) -> list[StreamChunk]:
    """Read the reply of ``XRANGE`` or ``XREVRANGE``."""
    return [decode_entry(entry_id, fields) for entry_id, fields in cast("list[Any]", reply)]


async def entries_after(redis: Redis, stream: str, after: EntryId) -> list[StreamChunk]:
    """The next page after an id."""
    return decode_page(await redis.xrange(stream, min=f"({after}", count=PAGE))


async def entries_back(redis: Redis, stream: str, before: str | None) -> list[StreamChunk]:
    """The page before an id, newest first; ``None``: the newest page."""
    newest = "+" if before is None else f"({before}"
    return decode_page(await redis.xrevrange(stream, max=newest, count=PAGE))


async def entry_at(redis: Redis, stream: str, entry_id: str) -> StreamChunk | None:
    """One entry, if it is retained."""
    found = decode_page(await redis.xrange(stream, min=entry_id, max=entry_id))
    return found[0] if found else None


async def entry_after(redis: Redis, stream: str, after: EntryId) -> StreamChunk | None:
    """The first entry after an id."""
    found = decode_page(await redis.xrange(stream, min=f"({after}", count=1))
    return found[0] if found else None


async def newest_entry(redis: Redis, stream: str) -> StreamChunk | None:
    """The last entry."""
    found = decode_page(await redis.xrevrange(stream, count=1))
    return found[0] if found else None
