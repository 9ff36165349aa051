"""Reading what is no longer whole: docs/protocol.md, sections 4.7, 4.8 and 4.12."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry
from streaming.errors import InvalidCursor
from streaming.identifiers import keys_of
from streaming.text_blocks import chunks_of
from tests.contract.conftest import BOUND, TTL
from tests.contract.reading import (
    COMPLETED,
    LiveReader,
    begin,
    complete_run,
    read_all,
    subscribers,
    text,
    text_of,
    until,
)

#: Longer than a millisecond: ids of two streams can only be the same within one.
TICK = 0.002


async def test_a_deleted_terminal_is_not_waited_for(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has ended but whose end was deleted ends its readers with a reason."""
    monkeypatch.setattr("streaming.reading.liveness.LIVENESS_INTERVAL", TTL / 100_000)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", TTL / 100_000)
    await complete_run(handler, "c", "r", "a")
    await redis.xdel(keys_of("c").stream, (await read_all(handler, "c"))[-1].entry_id)
    assert [chunk.code for chunk in await read_all(handler, "c")] == [None, "stream_lost"]


async def test_a_cursor_from_the_future_is_refused(handler: RedisStreamResponseHandler) -> None:
    """A cursor after everything in the stream was never given out."""
    await complete_run(handler, "c", "r", "a")
    with pytest.raises(InvalidCursor, match="given out"):
        await handler.reader.open("c", "99999999999999-0")


async def test_a_cursor_that_redis_forgot_begins_again(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """While a run is in progress, a cursor after everything was forgotten by Redis: a reset, then the run."""
    attempt = await begin(handler, "c", "r")
    given = await handler.runs.append(attempt, 0, [text("half")])
    await redis.flushall()
    await handler.runs.register("c", "r", "Agent")
    for run in (None, "r"):
        opened = await handler.reader.open("c", given.entry_ids[0], run=run)
        chunks = chunks_of(await anext(opened))
        assert [(chunk.type, chunk.sequence) for chunk in chunks] == [("reset", None)]
        await opened.aclose()


async def test_what_memory_still_has_is_not_repeated_after_a_flush(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A reader that comes back after a flush, beside one that stayed, ends up with everything once."""
    attempt = await begin(handler, "c", "r", "first")
    other = LiveReader(await handler.reader.open("c"))
    given = []
    for number in range(3):
        appended = await handler.runs.append(attempt, number, [text(str(number))])
        given += appended.entry_ids
        await other.next()
    await redis.flushall()
    await handler.runs.register("c", "r", "Agent", attempt=1)
    opened = await handler.reader.open("c", given[1])
    again = await begin(handler, "c", "r", "second")
    await handler.runs.append(again, 0, [NewEntry(1, type="reset"), *map(text, "012"), COMPLETED])
    async with asyncio.timeout(BOUND):
        chunks = [chunk async for batch in opened for chunk in chunks_of(batch)]
    assert chunks[0].type == "reset"
    assert (text_of(chunks), chunks[-1].is_done) == ("012", True)
    await other.aclose()


async def test_what_a_reader_had_is_not_repeated_when_redis_lost_the_newest(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A reader ahead of a Redis that lost its newest entries begins again, whoever then adds what."""
    attempt = await begin(handler, "c", "r", "first")
    given = await handler.runs.append(attempt, 0, [text("a"), text("b"), text("c")])
    await redis.xdel(keys_of("c").stream, given.entry_ids[2])
    await redis.hset(keys_of("c").run("r"), "next", "2")
    opened = await handler.reader.open("c", given.entry_ids[2], run="r")
    again = await begin(handler, "c", "r", "second")
    await handler.runs.append(again, 1, [text("a"), text("b"), text("c"), COMPLETED])
    async with asyncio.timeout(BOUND):
        chunks = [chunk async for batch in opened for chunk in chunks_of(batch)]
    assert chunks[0].type == "reset"
    assert (text_of(chunks), chunks[-1].is_done) == ("abc", True)


async def test_trimmed_entries_are_told_as_a_gap(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """A cursor older than what is retained gets a gap, then what is left."""
    await complete_run(handler, "c", "r", *"abcdef")
    whole = await read_all(handler, "c")
    await redis.xtrim(keys_of("c").stream, maxlen=3, approximate=False)
    rest = await read_all(handler, "c", whole[0].entry_id)
    assert [chunk.type for chunk in rest] == ["gap", None, None, None]
    assert text_of(rest) == "ef"
    assert rest[0].entry_id == whole[0].entry_id


async def test_deleted_entries_are_told_as_a_gap(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Entries deleted in the middle of a run leave a gap in their place."""
    await complete_run(handler, "c", "r", *"abcdef")
    whole = await read_all(handler, "c")
    await redis.xdel(keys_of("c").stream, whole[2].entry_id, whole[3].entry_id)
    rest = await read_all(handler, "c", whole[0].entry_id)
    assert [chunk.text if chunk.type is None else chunk.type for chunk in rest] == [
        "b",
        "gap",
        "e",
        "f",
        None,
    ]


async def test_a_cursor_of_another_conversation_begins_a_run_again(
    handler: RedisStreamResponseHandler,
) -> None:
    """A cursor that no entry of the stream has is never taken for one: a reset, then one run, whole."""
    first, second = await begin(handler, "c", "r1"), await begin(handler, "c", "r2")
    foreign = []
    for number in range(3):
        await asyncio.sleep(TICK)
        foreign.append(await handler.write_chunk("other", "foreign", number))
        await asyncio.sleep(TICK)
        await handler.runs.append(first, number, [text(f"a{number}")])
        await handler.runs.append(second, number, [text(f"b{number}")])
    for attempt in (first, second):
        await handler.runs.append(attempt, 3, [COMPLETED])
    for cursor in foreign:
        chunks = await read_all(handler, "c", cursor)
        assert chunks[0].type == "reset"
        assert {chunk.run for chunk in chunks} == {"r1"}
        assert text_of(chunks) == "a0a1a2"
    await asyncio.sleep(TICK)
    later = await handler.write_chunk("other", "foreign", 3)
    (refusal,) = await read_all(handler, "c", later)
    assert refusal.code == "invalid_cursor"


async def test_a_cursor_whose_entry_was_deleted_goes_on(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """When the cursor's own entry is gone, the rest of its run follows, after a gap."""
    await complete_run(handler, "c", "r", *"abc")
    whole = await read_all(handler, "c")
    await redis.xdel(keys_of("c").stream, whole[1].entry_id)
    rest = await read_all(handler, "c", whole[1].entry_id)
    assert [chunk.type for chunk in rest] == ["gap", None, None]
    assert text_of(rest) == "c"


async def test_a_flushed_store_ends_a_waiting_reader(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose run is gone from the store ends with a reason."""
    monkeypatch.setattr("streaming.reading.liveness.LIVENESS_INTERVAL", TTL / 100_000)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", TTL / 100_000)
    await begin(handler, "c", "r")
    reading = asyncio.create_task(read_all(handler, "c"))
    await until(lambda: subscribers(redis, 1))
    await redis.flushall()
    (end,) = await reading
    assert end.code == "stream_lost"


async def test_an_entry_that_was_read_and_lost_is_not_doubled(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """An entry that a client had, a failover lost and its writer appended again does not come twice."""
    attempt = await begin(handler, "c", "r")
    given = await handler.runs.append(attempt, 0, [text("a"), text("b")])
    await redis.xdel(keys_of("c").stream, given.entry_ids[1])
    await redis.hset(keys_of("c").run("r"), "next", "1")
    resumed = LiveReader(await handler.reader.open("c", given.entry_ids[1]))
    # The writer had no reply, so it repeats what Redis no longer has.
    await handler.runs.append(attempt, 1, [text("b"), text("c"), COMPLETED])
    for chunks in (await resumed.rest(), await read_all(handler, "c", given.entry_ids[1])):
        assert chunks[0].type == "reset"
        assert text_of(chunks) == "abc"


async def test_a_run_that_begins_anew_under_the_same_number_is_told(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """After a flush, a crashed run that is executed again is attempt 1 once more: its reader is told."""
    first = await begin(handler, "c", "r", "first worker")
    reader = LiveReader(await handler.reader.open("c"))
    await handler.runs.append(first, 0, [text("old "), text("text")])
    assert [(await reader.next()).text for _ in range(2)] == ["old ", "text"]
    await redis.flushall()
    again = await begin(handler, "c", "r", "second worker")
    await handler.runs.append(again, 0, [text("new"), COMPLETED])
    assert [chunk.type or chunk.text for chunk in await reader.rest()] == ["reset", "new", None]
