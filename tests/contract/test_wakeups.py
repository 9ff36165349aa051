"""Wake-ups carry the entries themselves, and what they don't carry is read: docs/decisions/0008."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.cancellation import cancel_and_wait
from streaming.commands import Commands
from streaming.connections import is_cluster, subscription
from streaming.entries import StreamChunk, as_text
from streaming.errors import RunLost
from streaming.identifiers import keys_of
from streaming.reading import follower as follower_module
from streaming.reading import patrol
from streaming.reading.follower import StreamFollower
from streaming.reading.live_stream import LiveStream
from streaming.store.run_states import Attempt
from streaming.store.run_store import CARRIED_BYTES
from streaming.store.stored_entries import newest_entry
from streaming.text_blocks import chunks_of
from tests.contract.reading import BOUND, COMPLETED, begin, read_all, subscribers, text, text_of, until


async def test_entries_between_wake_ups_are_not_passed_over(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """An entry that nobody told of comes in its place, though the next wake-up carries the one after it."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("one ")])
    opened = await handler.reader.open("c", "0", follow=True)
    seen: list[StreamChunk] = []

    async def read() -> None:
        async for batch in opened:
            seen.extend(chunks_of(batch))
            if batch and batch[-1].is_terminal:
                return

    reading = asyncio.create_task(read())
    await until(lambda: subscribers(redis, 1))
    for sequence in range(1, 30):
        await redis.xadd(keys_of("c").stream, {"text": f"foreign {sequence} "})
        await handler.runs.append(attempt, sequence, [text(f"ours {sequence} ")])
    await handler.runs.append(attempt, 30, [COMPLETED])
    async with asyncio.timeout(BOUND):
        await reading
    stored: Any = await redis.xrange(keys_of("c").stream)
    assert [chunk.entry_id for chunk in seen] == [entry_id.decode() for entry_id, _ in stored]


async def test_what_comes_before_it_is_known_where_the_stream_stands(
    handler: RedisStreamResponseHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is told of while its first reader still asks for the newest one comes at once, too."""
    # Else it would be found all the same, but after seconds.
    monkeypatch.setattr(patrol, "LIVENESS_INTERVAL", timedelta(hours=1))
    other = await begin(handler, "other", "o")
    listening = asyncio.create_task(read_all(handler, "other"))
    follower = handler.reader._follower
    await until(lambda: _soon("stream-wakeups" in follower._tasks))
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("one ")])
    hear, heard = follower._hear, asyncio.Event()

    def heard_of(channel: str | bytes, message: object) -> None:
        hear(channel, message)
        if message and as_text(channel) == keys_of("c").channel:
            heard.set()

    async def asked(commands: Commands, stream: str) -> StreamChunk | None:
        newest = await newest_entry(commands, stream)
        await handler.runs.append(attempt, 1, [text("two ")])
        await heard.wait()
        await until(lambda: _soon(not follower._woken))
        return newest

    monkeypatch.setattr(follower, "_hear", heard_of)
    monkeypatch.setattr(follower_module, "newest_entry", asked)
    opened = await handler.reader.open("c")
    async with asyncio.timeout(BOUND):
        told = ""
        while not told.endswith("two "):
            told += text_of(list(chunks_of(await anext(opened))))
    assert told == "one two "
    await handler.runs.append(attempt, 2, [COMPLETED])
    await handler.runs.append(other, 0, [COMPLETED])
    await listening
    await opened.aclose()


async def test_a_stream_is_not_read_before_it_is_known_where_it_stands(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other programs add while a reader begins to follow comes after what there was, all of it."""
    await redis.xadd(keys_of("foreign-other").stream, {"text": "o"})
    other = await handler.reader.open("foreign-other", follow=True)
    assert text_of(list(chunks_of(await anext(other)))) == "o"
    waiting = asyncio.create_task(anext(other))
    follower = handler.reader._follower
    await until(lambda: _soon([*map(follower._foreign.follows, follower._streams.values())] == [True]))
    await redis.xadd(keys_of("foreign").stream, {"text": "one "})
    is_followed: list[bool] = []

    async def asked(commands: Commands, stream: str) -> StreamChunk | None:
        newest = await newest_entry(commands, stream)
        # All that are followed are read.
        await redis.xadd(keys_of("foreign-other").stream, {"text": "p"})
        await waiting
        is_followed.append(follower._foreign.follows(follower._streams[keys_of("foreign").channel]))
        await redis.xadd(keys_of("foreign").stream, {"text": "two "})
        return newest

    monkeypatch.setattr(follower_module, "newest_entry", asked)
    opened = await handler.reader.open("foreign", follow=True)
    told = ""
    async with asyncio.timeout(BOUND):
        while not told.endswith("two "):
            told += text_of(list(chunks_of(await anext(opened))))
        await redis.xadd(keys_of("foreign").stream, {"text": "three"})
        while not told.endswith("three"):
            told += text_of(list(chunks_of(await anext(opened))))
    assert (told, is_followed) == ("one two three", [False])
    await opened.aclose()
    await other.aclose()


async def _soon(is_so: bool) -> bool:
    return is_so


@pytest.mark.parametrize(
    "message",
    [
        "",
        "0-1",
        "[",
        "[]",
        "[1]",
        '["0-0","1-1"]',
        '["0-0","x",["text"]]',
        "{}",
        '["0-0",{},[]]',
        '["0-0","x",["text","t"]]',
        '["0-0","9-9",[1,2]]',
        "[[]]",
    ],
)
async def test_messages_of_others_do_no_harm(
    handler: RedisStreamResponseHandler, redis: Redis, message: str
) -> None:
    """Whatever is published on a stream's channel, its readers get what is stored and nothing else."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("one ")])
    reading = asyncio.create_task(read_all(handler, "c"))
    await until(lambda: subscribers(redis, 1))
    await redis.publish(keys_of("c").channel, message)
    await handler.runs.append(attempt, 1, [text("two"), COMPLETED])
    assert text_of(await reading) == "one two"


async def test_a_wake_up_that_comes_twice_or_late(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Entries that a reader has already come no second time, whatever says that they are new."""
    attempt = await begin(handler, "c", "r")
    appended = await handler.runs.append(attempt, 0, [text("one ")])
    reading = asyncio.create_task(read_all(handler, "c"))
    await until(lambda: subscribers(redis, 1))
    fields = ["text", "one ", "sequence", "0", "run", "r"]
    for before in ("0-0", appended.entry_ids[0]):
        await redis.publish(keys_of("c").channel, json.dumps([before, appended.entry_ids[0], fields]))
    await handler.runs.append(attempt, 1, [text("two"), COMPLETED])
    assert text_of(await reading) == "one two"


async def test_batches_that_are_too_large_to_carry(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """A batch over the limit is read from the stream, and the small one after it follows on."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("one ")])
    reading = asyncio.create_task(read_all(handler, "c"))
    await until(lambda: subscribers(redis, 1))
    large = "x" * CARRIED_BYTES
    await handler.runs.append(attempt, 1, [text(large), text("é🙂\r\n\x00\u2028")])
    await handler.runs.append(attempt, 3, [text(" two"), COMPLETED])
    assert text_of(await reading) == f"one {large}é🙂\r\n\x00\u2028 two"


@pytest.mark.parametrize("entries", [1, 3, 4, 30])
@pytest.mark.parametrize("is_heard", [False, True])
async def test_what_nobody_hears_is_not_told_at_length(
    handler: RedisStreamResponseHandler, redis: Redis, entries: int, *, is_heard: bool
) -> None:
    """Who subscribes to the channel is told a batch's entries; where none is, a large one tells its id."""
    attempt = await begin(handler, "c", "r")
    # Told too, and not counted.
    watching = subscription(redis)
    await watching.psubscribe(f"{keys_of('c').channel}*")
    async with asyncio.timeout(BOUND):
        while (await watching.get_message(timeout=1.0) or {}).get("type") != "psubscribe":
            pass
    listening = subscription(redis, ignore_subscribe_messages=True)
    if is_heard:
        await listening.subscribe(keys_of("c").channel)
        await until(lambda: subscribers(redis, 1))
    appended = await handler.runs.append(attempt, 0, [text(str(number)) for number in range(entries)])
    told = ""
    async with asyncio.timeout(BOUND):
        while appended.entry_ids[-1] not in told:
            message = await watching.get_message(timeout=1.0)
            told = message["data"].decode() if message else ""
    for each in (watching, listening):
        await each.aclose()  # type: ignore[no-untyped-call]
    if is_cluster(redis) or (entries > 3 and not is_heard):
        assert told == appended.entry_ids[-1]
    else:
        assert json.loads(told)[1::2] == appended.entry_ids


async def test_a_chunk_of_no_registered_run_is_carried(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """The wake-up of ``write_chunk`` has the entry and the id before; if large or a cluster's, its id."""
    ids = [await handler.write_chunk("c", "a", 0)]
    pubsub = subscription(redis, ignore_subscribe_messages=True)
    await pubsub.subscribe(keys_of("c").channel)
    await until(lambda: subscribers(redis, 1))
    contents = ["é\n", "x" * CARRIED_BYTES, ""]
    messages: list[str] = []
    async with asyncio.timeout(BOUND):
        for number, content in enumerate(contents, 1):
            ids.append(await handler.write_chunk("c", content, number))
        while len(messages) < len(contents):
            if message := await pubsub.get_message(timeout=1.0):
                messages.append(message["data"].decode())
    await pubsub.aclose()  # type: ignore[no-untyped-call]
    if is_cluster(redis):
        assert messages == ids[1:]
        return
    before, entry_id, fields = json.loads(messages[0])
    assert [before, entry_id] == ids[:2]
    assert fields[:4] == ["text", "é\n", "sequence", "1"]
    assert messages[1] == ids[2]
    assert json.loads(messages[2])[:2] == ids[2:]


async def test_calls_that_share_a_round_trip_are_apart(handler: RedisStreamResponseHandler) -> None:
    """A call that is refused, and one whose caller leaves, take nothing from others of their round trip."""
    attempts = [await begin(handler, f"c{number}", "r") for number in range(120)]
    unknown = Attempt("nowhere", "r", 1, 0)
    calls = [asyncio.create_task(handler.runs.append(each, 0, [text("x"), COMPLETED])) for each in attempts]
    refused = asyncio.create_task(handler.runs.append(unknown, 0, [text("x")]))
    await asyncio.sleep(0)
    calls[7].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    with pytest.raises(RunLost):
        await refused
    # The stand-in for Redis has executed it by then.
    assert {place for place, outcome in enumerate(done) if isinstance(outcome, BaseException)} <= {7}
    for number in (0, 6, 8, 119):
        assert text_of(await read_all(handler, f"c{number}")) == "x"


async def test_who_leaves_while_redis_answers_is_let_go(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel that meets an answer of Redis, where the driver swallows it, ends the read all the same."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("one ")])
    acquire = StreamFollower.acquire

    async def swallow_a_cancel(follower: StreamFollower, *given: Any, **named: Any) -> LiveStream:
        live = await acquire(follower, *given, **named)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return live

    async def read() -> None:
        async for _ in handler.read_stream("c"):
            pass

    monkeypatch.setattr(StreamFollower, "acquire", swallow_a_cancel)
    reading = asyncio.create_task(read())
    has_left, _ = await asyncio.wait({reading}, timeout=BOUND)
    await cancel_and_wait({reading})
    assert has_left, "it waits for what comes next"
    await until(lambda: subscribers(redis, 0))
