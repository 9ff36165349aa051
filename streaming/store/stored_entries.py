"""Reads stored entries of a stream: pages and single ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from streaming.commands import Commands
from streaming.entries import StreamChunk, decode_entry
from streaming.identifiers import EntryId
from streaming.text_blocks import Part, TextBlock, parts_of

#: Entries of one page: large enough that round trips don't count, small enough for memory.
PAGE: Final = 500
#: The most entries of one that only passes through: half again as fast.
PART_PAGE: Final = 1_000
#: Of the first, whose entries' size nobody knows yet.
FIRST_PART_PAGE: Final = 200
#: Roughly how much text and names it may have: each reader that is slow holds one.
PART_PAGE_BYTES: Final = 262_144
#: One of so many entries is measured for that.
SAMPLED: Final = 16


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of a stream."""

    parts: list[Part]
    #: There may be more.
    is_full: bool
    #: How many entries the next one should have.
    next_count: int

    @property
    def last(self) -> EntryId:
        """The id of the last entry; there has to be one."""
        part = self.parts[-1]
        return part.last if isinstance(part, TextBlock) else part.id


def decode_page(reply: object) -> list[StreamChunk]:
    """Read the reply of ``XRANGE`` or ``XREVRANGE``."""
    return [decode_entry(entry_id, fields) for entry_id, fields in cast("list[Any]", reply)]


async def entries_after(commands: Commands, stream: str, after: EntryId) -> list[StreamChunk]:
    """The next page after an id."""
    return decode_page(await commands.page(stream, "XRANGE", stream, f"({after}", "+", "COUNT", PAGE))


async def parts_after(
    commands: Commands, stream: str, after: EntryId, *, count: int = FIRST_PART_PAGE
) -> Page:
    """The next page after an id, for one to whom most of it only passes through."""
    reply = await commands.page(stream, "XRANGE", stream, f"({after}", "+", "COUNT", count)
    return Page(parts_of(reply), is_full=len(reply) == count, next_count=_next_count(reply))


def _next_count(reply: list[Any]) -> int:
    """How many entries the next page may have, if they are as large as some of these."""
    sample = [values.values() if isinstance(values, dict) else values for _, values in reply[::SAMPLED]]
    size = sum([len(value) for values in sample for value in values]) // max(1, len(sample))
    return min(max(PART_PAGE_BYTES // max(1, size), 1), PART_PAGE)


async def entries_back(commands: Commands, stream: str, before: str | None) -> list[StreamChunk]:
    """The page before an id, newest first; ``None``: the newest page."""
    newest = "+" if before is None else f"({before}"
    return decode_page(await commands.page(stream, "XREVRANGE", stream, newest, "-", "COUNT", PAGE))


async def entry_at(commands: Commands, stream: str, entry_id: str) -> StreamChunk | None:
    """One entry, if it is retained."""
    found = decode_page(await commands.execute(stream, "XRANGE", stream, entry_id, entry_id))
    return found[0] if found else None


async def entry_after(commands: Commands, stream: str, after: EntryId) -> StreamChunk | None:
    """The first entry after an id."""
    found = decode_page(await commands.execute(stream, "XRANGE", stream, f"({after}", "+", "COUNT", 1))
    return found[0] if found else None


async def newest_entry(commands: Commands, stream: str) -> StreamChunk | None:
    """The last entry."""
    found = decode_page(await commands.execute(stream, "XREVRANGE", stream, "+", "-", "COUNT", 1))
    return found[0] if found else None
