"""Streams whose writers publish nothing, where Redis says what changes, and where it does not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from streaming.reading import tracked_reads as module
from streaming.reading.tracked_reads import TrackedReads
from streaming.store.stored_entries import PAGE
from tests.redis_server import RedisServer

#: Reached only by what hangs.
BOUND = 30.0
PASSWORD = "pass-word"


class _Readers:
    """Readers of many conversations, that other programs write."""

    def __init__(self, handler: RedisStreamResponseHandler, redis: Redis) -> None:
        self._handler = handler
        self._redis = redis
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._texts: dict[str, str] = {}
        self._has_come = asyncio.Condition()

    @property
    def tracked(self) -> TrackedReads:
        """What is looked at."""
        return self._handler.reader._follower._foreign

    async def begin(self, *conversations: str) -> None:
        """Read conversations with one text each, until all of them wait for what comes."""
        for conversation in conversations:
            await self.add(conversation, "0")
            self._texts[conversation] = ""
            self._tasks[conversation] = asyncio.create_task(self._read(conversation))
        await self.come(dict.fromkeys(conversations, "0"))
        await self.are_followed(*conversations)

    async def are_followed(self, *conversations: str) -> None:
        """Wait until what other programs add to these would be seen."""
        streams = self._handler.reader._follower._streams

        def all_of_them() -> bool:
            found = [streams.get(keys_of(conversation).channel) for conversation in conversations]
            return all(stream is not None and self.tracked.follows(stream) for stream in found)

        await _until(all_of_them)

    async def _read(self, conversation: str) -> None:
        async for chunk in self._handler.read_stream(conversation):
            async with self._has_come:
                self._texts[conversation] += chunk.text or ""
                self._has_come.notify_all()

    async def add(self, conversation: str, text: str) -> None:
        """Append as any program may."""
        await self._redis.xadd(keys_of(conversation).stream, {"text": text})

    async def come(self, texts: dict[str, str]) -> None:
        """Wait until this is what readers have."""
        async with asyncio.timeout(BOUND), self._has_come:
            await self._has_come.wait_for(lambda: texts.items() <= self._texts.items())

    async def leave(self, *conversations: str) -> None:
        """Read some no more."""
        leaving = [self._tasks.pop(conversation) for conversation in conversations]
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    async def leave_all(self) -> None:
        """Read none any more."""
        await self.leave(*self._tasks)


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not happened():  # noqa: ASYNC110 - what happens inside sets no event
            await asyncio.sleep(0)


@asynccontextmanager
async def _reading(server: RedisServer, url: str = "") -> AsyncIterator[_Readers]:
    async with (
        server.client() as redis,
        RedisStreamResponseHandler(connect(url or server.url)) as handler,
    ):
        readers = _Readers(handler, redis)
        try:
            yield readers
        finally:
            await readers.leave_all()


@pytest.fixture(autouse=True)
def _no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told of is not found by the look that readers have besides."""
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(hours=1))


async def _tracking(redis: Redis) -> list[dict[str, Any]]:
    """The connections that Redis tells what changes."""
    return [each for each in await redis.client_list() if "t" in each["flags"]]


async def _are_tracking(redis: Redis, count: int) -> list[dict[str, Any]]:
    """Wait until there are so many of them."""
    async with asyncio.timeout(BOUND):
        while len(found := await _tracking(redis)) != count:  # noqa: ASYNC110 - another process's doing sets no event here
            await asyncio.sleep(0.01)
    return found


async def test_each_stream_is_read_once_it_has_changed(server: RedisServer) -> None:
    """However many there are: what is added comes, and Redis is asked for no other stream."""
    conversations = [f"c{number}" for number in range(3 * module.READS_UNDER_WAY)]
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin(*conversations)
        await redis.config_resetstat()
        for round_ in range(1, 4):
            for conversation in conversations[::2]:
                await readers.add(conversation, str(round_))
            await readers.come(dict.fromkeys(conversations[::2], "0123"[: round_ + 1]))
        calls = await redis.info("commandstats")
        assert calls["cmdstat_xrange"]["calls"] == 3 * len(conversations[::2])
        assert "cmdstat_xread" not in calls
        await _are_tracking(redis, 1)


async def test_more_entries_at_once_than_a_page_has(server: RedisServer) -> None:
    """A program that adds thousands of entries at once: all of them come, in order."""
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        async with redis.pipeline(transaction=True) as pipeline:
            for number in range(2 * PAGE + 1):
                _ = pipeline.xadd(keys_of("c").stream, {"text": f"{number},"})
            await pipeline.execute()
        await readers.come({"c": "0" + "".join(f"{number}," for number in range(2 * PAGE + 1))})


async def test_a_connection_that_is_lost(server: RedisServer) -> None:
    """What is added while there is no connection comes with the next one."""
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin("c", "d")
        for round_ in range(1, 4):
            [connection] = await _are_tracking(redis, 1)
            await redis.client_kill_filter(_id=connection["id"])
            await readers.add("c", str(round_))
            await readers.come({"c": "0123"[: round_ + 1], "d": "0"})


async def test_a_redis_that_hangs(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts connections and answers nothing is asked again until it answers."""
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", timedelta(milliseconds=100))
    failures: list[str] = []
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        await _are_tracking(redis, 1)
        telemetry = readers.tracked._telemetry
        monkeypatch.setattr(telemetry, "redis_failed", lambda at, _error: failures.append(at))
        server.signal(signal.SIGSTOP)
        try:
            await _until(lambda: "tracked_read" in failures)
        finally:
            server.signal(signal.SIGCONT)
        await readers.add("c", "1")
        await readers.come({"c": "01"})


async def test_connections_are_renewed_and_let_go(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection is held for a while; without readers there is none."""
    monkeypatch.setattr(module, "HELD_AT_MOST", timedelta(milliseconds=20))
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", timedelta(milliseconds=10))
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        seen: set[str] = set()
        text = "0"
        while len(seen) < 4:
            text += str(len(seen))
            await readers.add("c", text[-1])
            await readers.come({"c": text})
            seen |= {connection["id"] for connection in await _tracking(redis)}
        await readers.leave_all()
        await _are_tracking(redis, 0)
        await readers.begin("d")
        await readers.add("d", "1")
        await readers.come({"d": "01"})


async def test_a_key_that_is_no_stream_holds_nobody_up(server: RedisServer) -> None:
    """Where a stream has become something else its readers wait, and those of others do not."""
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin("bad", "good")
        await redis.set(keys_of("bad").stream, "text")
        await readers.add("good", "1")
        await readers.come({"good": "01"})
        await redis.delete(keys_of("bad").stream)
        await readers.add("bad", "1")
        await readers.come({"bad": "01"})


async def test_all_keys_are_deleted(server: RedisServer) -> None:
    """A server that is emptied says so once for all keys; what is added afterwards comes."""
    async with _reading(server) as readers, server.client() as redis:
        await readers.begin("c", "d")
        await redis.flushall()
        for conversation in ("c", "d"):
            await readers.add(conversation, "1")
        await readers.come({"c": "01", "d": "01"})


async def test_a_stream_that_is_left_and_read_again(server: RedisServer) -> None:
    """Nothing is kept of a stream without readers, and one that comes back gets what it lacks."""
    async with _reading(server) as readers:
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


async def test_a_user_who_may_not_ask(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Where rules of access refuse it, streams are followed without being told of, and a log line says so."""
    rules = ("resetkeys", "~*", "resetchannels", "&*", "+@all", "-client|tracking")
    async with server.client() as redis:
        await redis.execute_command("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", *rules)  # type: ignore[no-untyped-call]
    caplog.set_level(logging.INFO)
    async with _reading(server, f"redis://reader:{PASSWORD}@127.0.0.1:{server.port}/0") as readers:
        await readers.begin("c", "d")
        await readers.add("c", "1")
        await readers.come({"c": "01", "d": "0"})
    told = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert told == ["streams of foreign writers are read without being told what changed: NoPermissionError"]


async def test_a_server_that_never_says_anything(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes the command and does nothing is found out, and streams are followed without it."""

    async def take(connection: AbstractConnection) -> None:
        await connection.send_command("HELLO", 3)
        await connection.read_response()

    monkeypatch.setattr(module, "_track", take)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(milliseconds=300))
    async with _reading(server) as readers:
        await readers.begin("c")
        await readers.add("c", "1")
        # Found by the look at silent streams.
        await readers.come({"c": "01"})
        await _until(lambda: not readers.tracked._is_told)
        await readers.are_followed("c")
        monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(hours=1))
        await readers.add("c", "2")
        await readers.come({"c": "012"})
