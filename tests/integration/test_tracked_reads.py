"""Streams whose writers publish nothing, where Redis says what changes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import timedelta
from typing import Any

import pytest

from streaming.identifiers import keys_of
from streaming.reading import tracked_connection
from streaming.store.stored_entries import PAGE
from tests.integration.foreign_streams import are_tracking, reading, reads, tracking, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("no_look")


async def test_each_stream_is_read_once_it_has_changed(server: RedisServer) -> None:
    """However many there are: what is added comes, and Redis is asked for no other stream."""
    conversations = [f"c{number}" for number in range(3 * tracked_connection.READS_UNDER_WAY)]
    async with reading(server) as readers, server.client() as redis:
        await readers.begin(*conversations)
        await redis.config_resetstat()
        for round_ in range(1, 4):
            for conversation in conversations[::2]:
                await readers.add(conversation, str(round_))
            await readers.come(dict.fromkeys(conversations[::2], "0123"[: round_ + 1]))
        calls = await redis.info("commandstats")
        assert calls["cmdstat_xrange"]["calls"] == 3 * len(conversations[::2])
        assert "cmdstat_xread" not in calls
        await are_tracking(redis, 1)


async def test_more_entries_at_once_than_a_page_has(server: RedisServer) -> None:
    """A program that adds thousands of entries at once: all of them come, in order."""
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        async with redis.pipeline(transaction=True) as pipeline:
            for number in range(2 * PAGE + 1):
                _ = pipeline.xadd(keys_of("c").stream, {"text": f"{number},"})
            await pipeline.execute()
        await readers.come({"c": "0" + "".join(f"{number}," for number in range(2 * PAGE + 1))})


async def test_a_connection_that_is_lost(server: RedisServer) -> None:
    """What is added while there is no connection comes with the next one."""
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c", "d")
        for round_ in range(1, 4):
            [connection] = await are_tracking(redis, 1)
            await redis.client_kill_filter(_id=connection["id"])
            await readers.add("c", str(round_))
            await readers.come({"c": "0123"[: round_ + 1], "d": "0"})


async def test_a_redis_that_hangs(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts connections and answers nothing is asked again until it answers."""
    monkeypatch.setattr(tracked_connection, "ANSWER_TIMEOUT", timedelta(milliseconds=100))
    failures: list[str] = []
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        await are_tracking(redis, 1)
        telemetry = readers.tracked._telemetry
        monkeypatch.setattr(telemetry, "redis_failed", lambda at, _error: failures.append(at))
        server.signal(signal.SIGSTOP)
        try:
            await until(lambda: "tracked_read" in failures)
        finally:
            server.signal(signal.SIGCONT)
        await readers.add("c", "1")
        await readers.come({"c": "01"})


async def test_connections_are_renewed_and_let_go(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection is held for a while; without readers there is none."""
    monkeypatch.setattr(tracked_connection, "HELD_AT_MOST", timedelta(milliseconds=20))
    monkeypatch.setattr(tracked_connection, "ANSWER_TIMEOUT", timedelta(milliseconds=10))
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        seen: set[str] = set()
        text = "0"
        while len(seen) < 4:
            text += str(len(seen))
            await readers.add("c", text[-1])
            await readers.come({"c": text})
            seen |= {connection["id"] for connection in await tracking(redis)}
        await readers.leave_all()
        await are_tracking(redis, 0)
        await readers.begin("d")
        await readers.add("d", "1")
        await readers.come({"d": "01"})


async def test_a_key_that_is_no_stream_holds_nobody_up(server: RedisServer) -> None:
    """Where a stream has become something else its readers wait, and those of others do not."""
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("bad", "good")
        await redis.set(keys_of("bad").stream, "text")
        await readers.add("good", "1")
        await readers.come({"good": "01"})
        await redis.delete(keys_of("bad").stream)
        await readers.add("bad", "1")
        await readers.come({"bad": "01"})


async def test_all_keys_are_deleted(server: RedisServer) -> None:
    """A server that is emptied says so once for all keys; what is added afterwards comes."""
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c", "d")
        await redis.flushall()
        for conversation in ("c", "d"):
            await readers.add(conversation, "1")
        await readers.come({"c": "01", "d": "01"})


async def test_a_stream_that_is_left_and_read_again(server: RedisServer) -> None:
    """Nothing is kept of a stream without readers, and one that comes back gets what it lacks."""
    async with reading(server) as readers:
        await readers.begin("c", "d")
        await readers.leave("c")
        [connection] = readers.tracked._connections.values()
        assert len(connection.streams) == 1
        await readers.add("c", "1")
        await readers.begin("e")
        tasks = asyncio.create_task(readers._read("c"))
        await readers.come({"c": "001"})
        await readers.are_followed("c")
        await readers.add("c", "2")
        await readers.come({"c": "0012"})
        tasks.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks


async def test_a_reader_that_falls_behind_reads_each_page_once(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a stream changes while it is read, it is read once at a time."""
    monkeypatch.setattr(tracked_connection, "PAGE", 10)
    entries = 2_000
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        await redis.config_resetstat()
        async with redis.pipeline(transaction=False) as pipeline:
            for _ in range(entries):
                _ = pipeline.xadd(keys_of("c").stream, {"text": "1"})
            await pipeline.execute()
        await readers.come({"c": "0" + "1" * entries})
        # Some bring less than a page, since what they bring is still being written.
        assert await reads(redis) < entries


async def test_a_server_that_can_remember_few_keys(server: RedisServer) -> None:
    """One that forgets keys says that they have changed: that is no reason to read them without a pause."""
    conversations = [f"c{number}" for number in range(20)]
    async with reading(server) as readers, server.client() as redis:
        await redis.config_set("tracking-table-max-keys", 5)
        await readers.begin(*conversations)
        await redis.config_resetstat()
        # A pause of each stream, twice.
        await asyncio.sleep(2 * tracked_connection.VAIN_PAUSE.total_seconds())
        assert await reads(redis) < 20 * len(conversations)
        await readers.add("c7", "1")
        await readers.come({"c7": "01"})


@pytest.mark.parametrize("query", ["", "?decode_responses=yes"])
async def test_an_entry_that_nobody_can_read(server: RedisServer, query: str) -> None:
    """What other programs write, be it no text or absurdly nested, holds up no other stream."""
    url = server.url + query
    async with reading(server, url) as readers, server.client() as redis:
        await readers.begin("bad", "worse", "good")
        fields: Any = {"text": "", "type": "x", "data": "[" * 200_000}
        await redis.xadd(keys_of("bad").stream, fields)
        await redis.xadd(keys_of("worse").stream, {"text": b"\xff\xfe"})
        for conversation in ("good", "bad", "worse"):
            await readers.add(conversation, "1")
        await readers.come({"good": "01", "bad": "01", "worse": "0\ufffd\ufffd1"})
