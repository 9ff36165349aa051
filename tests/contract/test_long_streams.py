"""Streams of many pages: docs/protocol.md, section 4."""

from __future__ import annotations

import asyncio

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry
from streaming.store.run_states import Attempt
from streaming.store.stored_entries import FIRST_PART_PAGE, PART_PAGE, PART_PAGE_BYTES
from streaming.text_blocks import chunks_of
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of


async def append(
    handler: RedisStreamResponseHandler, attempt: Attempt, entries: list[NewEntry], *, sequence: int = 0
) -> None:
    """Append entries of a run, in batches."""
    for place in range(0, len(entries), 500):
        await handler.runs.append(attempt, sequence + place, entries[place : place + 500])


@pytest.mark.parametrize("pages", [1, 2, 3])
@pytest.mark.parametrize("more", [-2, -1, 0, 1])
async def test_a_run_that_ends_near_the_end_of_a_page(
    handler: RedisStreamResponseHandler, pages: int, more: int
) -> None:
    """A run is read whole, to its own end, wherever the pages of the store end; the next run is not."""
    words = [f"word{number} " for number in range(FIRST_PART_PAGE + PART_PAGE * (pages - 1) + more)]
    words[10] = "a\nb\r\n"
    attempt = await begin(handler, "c", "r1")
    await append(handler, attempt, [*map(text, words), COMPLETED])
    await append(handler, await begin(handler, "c", "r2"), [text("another"), COMPLETED])
    chunks = await read_all(handler, "c", run="r1")
    assert [chunk.sequence for chunk in chunks] == list(range(len(words) + 1))
    assert (text_of(chunks), chunks[-1].is_done) == ("".join(words), True)
    everything = await read_all(handler, "c", "0")
    assert everything == [*chunks, *await read_all(handler, "c", run="r2")]
    for place in (0, FIRST_PART_PAGE - 1, FIRST_PART_PAGE, PART_PAGE - 1, PART_PAGE, len(chunks) - 2):
        cursor = chunks[min(place, len(chunks) - 2)].entry_id
        following = [chunk for chunk in chunks if chunk.id > chunks[min(place, len(chunks) - 2)].id]
        assert await read_all(handler, "c", cursor) == following


async def test_a_second_attempt_begins_in_the_middle_of_a_page(handler: RedisStreamResponseHandler) -> None:
    """What a worker that died had written, the reset, and the second attempt come in their order."""
    lost = await begin(handler, "c", "r")
    await append(handler, lost, [text(f"lost{number} ") for number in range(700)])
    attempt = await handler.begin_run("c", "r", agent="Agent", owner="another")
    words = [f"word{number} " for number in range(900)]
    # The reset has the sequence 0.
    await append(handler, attempt, [*map(text, words), COMPLETED], sequence=1)
    chunks = await read_all(handler, "c")
    assert text_of(chunks) == "".join(words)
    assert [chunk.type for chunk in chunks].count("reset") == 1
    assert len(chunks) == 700 + 1 + 900 + 1


async def test_pages_of_large_entries_are_short(handler: RedisStreamResponseHandler) -> None:
    """Large chunks come in pages of fewer of them, so that a slow reader holds little."""
    attempt = await begin(handler, "c", "r")
    await append(handler, attempt, [text("x" * 4_096)] * (FIRST_PART_PAGE * 2))
    await handler.runs.append(attempt, FIRST_PART_PAGE * 2, [COMPLETED])
    opened = await handler.reader.open("c")
    sizes = [len(list(chunks_of(batch))) async for batch in opened if batch]
    assert sizes[0] == FIRST_PART_PAGE
    assert max(sizes[1:]) * 4_096 <= PART_PAGE_BYTES
    assert sum(sizes) == FIRST_PART_PAGE * 2 + 1


async def test_who_leaves_a_replay_leaves_nothing_behind(handler: RedisStreamResponseHandler) -> None:
    """A reader that goes after the first page leaves no task, though the next page is on its way."""
    attempt = await begin(handler, "c", "r")
    await append(handler, attempt, [text("word ")] * (PART_PAGE * 3))
    before = asyncio.all_tasks()
    opened = await handler.reader.open("c")
    # The first says how large the others may be.
    assert len(list(chunks_of(await anext(opened)))) == FIRST_PART_PAGE
    assert len(list(chunks_of(await anext(opened)))) == PART_PAGE
    await opened.aclose()
    # The connection stays for a while.
    left = asyncio.all_tasks() - before
    assert {task for task in left if not task.get_name().startswith("redis-")} == set()
