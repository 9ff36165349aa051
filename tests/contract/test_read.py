"""Reading: rules of docs/protocol.md, section 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.cancellation import cancel_and_wait
from streaming.entries import RunStatus
from streaming.errors import ConversationNotFound, InvalidCursor, RunNotFound
from streaming.identifiers import keys_of
from streaming.reading.live_stream import RING_ENTRIES
from tests.contract.conftest import TTL
from tests.contract.reading import (
    BOUND,
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


async def test_a_second_turn_is_read_without_the_first(handler: RedisStreamResponseHandler) -> None:
    """Without a cursor, the latest run is read from its start."""
    await complete_run(handler, "c", "r1", "first")
    await complete_run(handler, "c", "r2", "second")
    assert text_of(await read_all(handler, "c")) == "second"


async def test_cursor_0_reads_all_that_is_retained(handler: RedisStreamResponseHandler) -> None:
    """Cursor 0 goes through all runs and ends at the last terminal."""
    await complete_run(handler, "c", "r1", "first")
    await complete_run(handler, "c", "r2", "second")
    for cursor in ("0", "0-0"):
        chunks = await read_all(handler, "c", cursor)
        assert [chunk.text for chunk in chunks] == ["first", None, "second", None]


async def test_every_cursor_resumes_strictly_after_it(handler: RedisStreamResponseHandler) -> None:
    """From every entry id the rest of the run is read, each chunk once."""
    await complete_run(handler, "c", "before", "x")
    await complete_run(handler, "c", "r", *"abcdefghij")
    await complete_run(handler, "c", "after", "y")
    whole = await read_all(handler, "c", run="r")
    assert text_of(whole) == "abcdefghij"
    for place, chunk in enumerate(whole[:-1]):
        assert await read_all(handler, "c", chunk.entry_id) == whole[place + 1 :]


async def test_a_terminal_with_nothing_after_it_has_nothing_more(handler: RedisStreamResponseHandler) -> None:
    """A cursor at the last terminal is told apart, so that a host can answer 204."""
    await complete_run(handler, "c", "r", "a")
    chunks = await read_all(handler, "c")
    assert (await handler.reader.open("c", chunks[-1].entry_id)).has_nothing_more
    assert not (await handler.reader.open("c", chunks[0].entry_id)).has_nothing_more
    await handler.runs.register("c", "next", "Agent")
    assert not (await handler.reader.open("c", chunks[-1].entry_id)).has_nothing_more


async def test_a_cursor_at_a_terminal_goes_on_with_the_next_run(handler: RedisStreamResponseHandler) -> None:
    """After a terminal, what comes next is read to its own terminal."""
    await complete_run(handler, "c", "r1", "first")
    end = (await read_all(handler, "c"))[-1]
    await complete_run(handler, "c", "r2", "second")
    await complete_run(handler, "c", "r3", "third")
    assert text_of(await read_all(handler, "c", end.entry_id)) == "second"


async def test_a_run_is_read_from_a_cursor_outside_it(handler: RedisStreamResponseHandler) -> None:
    """A cursor before the run reads all of it; one after its end has nothing more, and does not wait."""
    await complete_run(handler, "c", "r1", "first")
    await complete_run(handler, "c", "r2", "second")
    everything = await read_all(handler, "c", "0")
    assert text_of(await read_all(handler, "c", everything[1].entry_id, run="r2")) == "second"
    for after in everything[1:]:
        assert (await handler.reader.open("c", after.entry_id, run="r1")).has_nothing_more
    assert (await handler.reader.open("c", "$", run="r1")).has_nothing_more


async def test_heartbeats_come_while_only_others_are_heard(handler: RedisStreamResponseHandler) -> None:
    """A reader whose run waits gets heartbeats, however much another run of the conversation says."""
    other = await begin(handler, "c", "other")
    await handler.runs.register("c", "r", "Agent")
    opened = await handler.reader.open("c", run="r", heartbeat=timedelta(milliseconds=20))
    beat = asyncio.ensure_future(anext(opened))
    sequence = 0
    # A writer that pauses for a heartbeat would give it by chance.
    async with asyncio.timeout(BOUND):
        while not beat.done():
            await handler.runs.append(other, sequence, [text("x")])
            sequence += 1
    assert beat.result() == []
    await opened.aclose()


async def test_interleaved_runs_are_read_apart(handler: RedisStreamResponseHandler) -> None:
    """A reader sees only its run, also when it resumes by nothing but a cursor."""
    one, two = await begin(handler, "c", "one"), await begin(handler, "c", "two")
    for sequence in range(3):
        await handler.runs.append(one, sequence, [text(f"one{sequence} ")])
        await handler.runs.append(two, sequence, [text(f"two{sequence} ")])
    await handler.runs.append(one, 3, [COMPLETED])
    await handler.runs.append(two, 3, [COMPLETED])
    assert text_of(await read_all(handler, "c", run="one")) == "one0 one1 one2 "
    whole = await read_all(handler, "c")
    assert text_of(whole) == "two0 two1 two2 "
    assert text_of(await read_all(handler, "c", whole[0].entry_id)) == "two1 two2 "


async def test_chunks_arrive_one_by_one_as_they_are_written(handler: RedisStreamResponseHandler) -> None:
    """A reader has each chunk before the next one is written."""
    attempt = await begin(handler, "c", "r")
    reader = LiveReader(await handler.reader.open("c"))
    for sequence in range(20):
        await handler.runs.append(attempt, sequence, [text(str(sequence))])
        assert (await reader.next()).text == str(sequence)
    await handler.runs.append(attempt, 20, [COMPLETED])
    assert [chunk.is_done for chunk in await reader.rest()] == [True]


async def test_a_run_that_has_not_begun_is_waited_for(handler: RedisStreamResponseHandler) -> None:
    """A registered run without entries is known: its reader waits."""
    await handler.runs.register("c", "r", "Agent")
    reading = asyncio.create_task(read_all(handler, "c"))
    await complete_run(handler, "c", "r", "a")
    assert text_of(await reading) == "a"


async def test_an_unknown_conversation_is_not_found(handler: RedisStreamResponseHandler) -> None:
    """A conversation that is not there is an error that says so; nobody waits for nothing."""
    with pytest.raises(ConversationNotFound):
        await handler.reader.open("nobody")
    with pytest.raises(ConversationNotFound):
        await handler.reader.open("nobody", appear_timeout=TTL / 100_000)


async def test_a_conversation_that_appears_is_waited_for(handler: RedisStreamResponseHandler) -> None:
    """A reader that comes first waits for the writer."""
    reading = asyncio.create_task(read_all(handler, "c"))
    await handler.write_chunk("c", "a", 0)
    await handler.write_completion("c", 1)
    assert text_of(await reading) == "a"


@pytest.mark.parametrize("cursor", ["x", "1-", "-1", "1-2-3", "1 ", "+", f"{2**64}-0", "\u0661-0"])
async def test_a_malformed_cursor_is_refused(handler: RedisStreamResponseHandler, cursor: str) -> None:
    """Anything but an entry id, 0 or $ is an error that repeats it."""
    await complete_run(handler, "c", "r", "a")
    with pytest.raises(InvalidCursor, match="cursor is"):
        await handler.reader.open("c", cursor)


async def test_an_unknown_run_is_not_found(handler: RedisStreamResponseHandler) -> None:
    """Asking for a run that the conversation does not have is an error."""
    await complete_run(handler, "c", "r", "a")
    with pytest.raises(RunNotFound):
        await handler.reader.open("c", run="other")


async def test_only_what_is_new(handler: RedisStreamResponseHandler) -> None:
    """Cursor $ skips what is there."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("old")])
    reader = LiveReader(await handler.reader.open("c", "$"))
    await handler.runs.append(attempt, 1, [text("new"), COMPLETED])
    assert text_of(await reader.rest()) == "new"


async def test_follow_goes_on_through_later_runs(handler: RedisStreamResponseHandler) -> None:
    """With follow a terminal ends nothing; the next run comes on the same read."""
    await complete_run(handler, "c", "r1", "first")
    reader = LiveReader(await handler.reader.open("c", follow=True))
    assert [(await reader.next()).text, (await reader.next()).is_done] == ["first", True]
    await complete_run(handler, "c", "r2", "second")
    assert [(await reader.next()).text, (await reader.next()).is_done] == ["second", True]
    await reader.aclose()


async def test_a_foreign_writer_is_followed_live(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Entries that any program adds by XADD, publishing nothing, arrive as they are written."""
    key = keys_of("foreign").stream
    await redis.xadd(key, {"text": "0", "sequence": "0", "timestamp": "1"})
    readers = [LiveReader(await handler.reader.open("foreign")) for _ in range(3)]
    for number in range(5):
        assert {(await reader.next()).text for reader in readers} == {str(number)}
        await redis.xadd(key, {"text": str(number + 1), "sequence": str(number + 1), "timestamp": "1"})
    await redis.xadd(key, {"text": "", "sequence": "6", "timestamp": "1", "done": "true"})
    for reader in readers:
        assert [chunk.is_done for chunk in await reader.rest()] == [False, True]


async def test_an_unregistered_second_turn(handler: RedisStreamResponseHandler) -> None:
    """The latest of several unregistered runs is found by the terminals between them."""
    for turn in ("one", "two", "three"):
        await handler.write_chunk("c", turn, 0)
        await handler.write_completion("c", 1)
    assert text_of(await read_all(handler, "c")) == "three"


@pytest.mark.parametrize("decode_responses", [False, True])
async def test_a_client_that_decodes_reads_the_same(
    new_client: Callable[..., Redis], handler: RedisStreamResponseHandler, decode_responses: bool
) -> None:
    """The handler works with the user's client, decode_responses on or off."""
    await handler.write_chunk("c", "a🙂", 0)
    async with RedisStreamResponseHandler(new_client(decode_responses=decode_responses), TTL) as other:
        reading = asyncio.create_task(read_all(other, "c"))
        await handler.write_chunk("c", "b", 1)
        await other.write_completion("c", 2)
        chunks = await reading
    assert text_of(chunks) == "a🙂b"
    assert chunks[-1].is_done


async def test_the_published_reader_reads_our_streams(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A reader that knows only text, done and error gets the text and the end."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("Hello "), text("world"), COMPLETED])
    shown, ended = "", False
    entries: Any = await redis.xrange(keys_of("c").stream)
    for _, fields in entries:
        ended = ended or fields.get(b"done") == b"true" or b"error" in fields
        shown += fields[b"text"].decode()
    assert (shown, ended) == ("Hello world", True)


async def test_a_reader_that_falls_behind_loses_nothing(handler: RedisStreamResponseHandler) -> None:
    """A slow reader pages from its own cursor when memory no longer covers it."""
    attempt = await begin(handler, "c", "r")
    slow, fast = LiveReader(await handler.reader.open("c")), LiveReader(await handler.reader.open("c"))
    await handler.runs.append(attempt, 0, [text("0 ")])
    assert (await slow.next()).text == (await fast.next()).text == "0 "
    total = RING_ENTRIES * 2 + 7
    for first in range(1, total, 100):
        count = min(100, total - first)
        await handler.runs.append(attempt, first, [text(f"{first + i} ") for i in range(count)])
        assert (await fast.next()).sequence is not None
    await handler.runs.append(attempt, total, [COMPLETED])
    assert [chunk.sequence for chunk in await slow.rest()] == list(range(1, total + 1))


async def test_many_readers_share_connections(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Fifty readers of ten streams hold no connection each."""
    attempts = [await begin(handler, f"c{number}", "r") for number in range(10)]
    readings = [asyncio.create_task(read_all(handler, f"c{number % 10}")) for number in range(50)]
    for sequence in range(5):
        await asyncio.gather(
            *(handler.runs.append(attempt, sequence, [text(f"{sequence}")]) for attempt in attempts)
        )
    clients = [] if isinstance(redis, FakeAsyncRedis) else await redis.client_list()
    await asyncio.gather(*(handler.runs.append(attempt, 5, [COMPLETED]) for attempt in attempts))
    assert {text_of(chunks) for chunks in await asyncio.gather(*readings)} == {"01234"}
    assert len(clients) <= 30


async def test_a_reader_that_leaves_leaves_nothing(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """After the last reader is gone no stream is followed and no subscription is held."""
    await begin(handler, "c", "r")
    readers = [LiveReader(await handler.reader.open("c")) for _ in range(3)]
    waiting = [asyncio.create_task(reader.next()) for reader in readers]
    await until(lambda: subscribers(redis, 1))
    await cancel_and_wait(waiting)
    for reader in readers:
        await reader.aclose()
    await until(lambda: subscribers(redis, 0))
    assert handler.reader._follower._streams == {}


async def test_closing_at_any_moment_lets_a_reader_go(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis]
) -> None:
    """However far a reader has come when the service stops, it ends as cut short and without an error."""
    await complete_run(handler, "c", "r", "a")
    for turns in range(30):
        async with RedisStreamResponseHandler(new_client(), TTL) as closing:
            reader = LiveReader(await closing.reader.open("c", follow=True))
            reading = asyncio.create_task(reader.rest())
            for _ in range(turns):
                await asyncio.sleep(0)
            await closing.reader.close()
            await reading
            assert reader.opened.cut_short


async def test_a_subscription_that_is_closed_underneath_is_trouble_that_passes(
    handler: RedisStreamResponseHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver raises when its connection is closed by another task costs a reader nothing."""
    attempt = await begin(handler, "c", "r")
    subscribe = handler.reader._follower._pubsub.subscribe
    raised: list[Exception] = [AttributeError("no writer"), RuntimeError("reads at once")]

    async def closed_underneath(*channels: str) -> None:
        if raised:
            raise raised.pop()
        await subscribe(*channels)

    monkeypatch.setattr(handler.reader._follower._pubsub, "subscribe", closed_underneath)
    reading = asyncio.create_task(read_all(handler, "c"))
    await until(lambda: subscribers(handler.runs.commands.redis, 1))
    await handler.runs.append(attempt, 0, [text("all"), COMPLETED])
    assert text_of(await reading) == "all"
    raised.append(AttributeError("no writer"))
    (refusal,) = [chunk async for chunk in handler.read_stream("unknown", appear_timeout=TTL / 100_000)]
    assert refusal.code == "stream_unavailable"


async def test_closing_lets_readers_go(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """When the service stops, readers end as cut short: no terminal is made up."""
    await begin(handler, "c", "r")
    reader = LiveReader(await handler.reader.open("c"))
    reading = asyncio.create_task(reader.rest())
    await until(lambda: subscribers(redis, 1))
    await handler.reader.close()
    assert await reading == []
    assert reader.opened.cut_short


async def test_a_dead_producer_ends_its_run(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose lease has lapsed ends as interrupted for all its readers."""
    monkeypatch.setattr("streaming.reading.liveness.LIVENESS_INTERVAL", TTL / 100_000)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", TTL / 100_000)
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("half")])
    await redis.hset(keys_of("c").run("r"), "lease", "1")
    for chunks in await asyncio.gather(*(read_all(handler, "c") for _ in range(3))):
        assert [chunk.text for chunk in chunks] == ["half", None]
        assert chunks[-1].status is RunStatus.INTERRUPTED


async def test_a_key_that_is_no_stream_is_told(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Whoever finds something else under a conversation's key is told so, and not to try again."""
    await redis.set("agent-stream:c", "something else", ex=60)
    (end,) = await read_all(handler, "c")
    assert end.code == "not_a_stream"
