"""Streams on which nothing comes for a while: who looks at them, and who need not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.identifiers import keys_of
from streaming.reading.live_stream import LiveStream
from streaming.reading.liveness import ProducerWatch
from streaming.store.run_states import Look, RunState
from streaming.store.run_store import RunStore
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of, until

BOUND = 10.0
READERS = 3


class Looks:
    """Counts the looks at runs whose producer may be gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered = 0
        send_look = RunStore.send_look

        def counted(store: RunStore, state: RunState, on_outcome: Callable[[Look | Exception], None]) -> None:
            def take(look: Look | Exception) -> None:
                on_outcome(look)
                self.answered += 1

            send_look(store, state, take)

        monkeypatch.setattr(RunStore, "send_look", counted)

    async def are_several(self) -> bool:
        """Whether there were so many that chance is no reason."""
        return self.answered >= 3


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Silent streams are looked at very often."""
    monkeypatch.setattr("streaming.reading.patrol.INTERVAL", timedelta(milliseconds=10))
    for module in ("patrol", "liveness"):
        monkeypatch.setattr(f"streaming.reading.{module}.LIVENESS_INTERVAL", timedelta(milliseconds=50))
    return Looks(monkeypatch)


def the_stream(handler: RedisStreamResponseHandler) -> LiveStream:
    """The one that is followed."""
    [stream] = handler.reader._follower._streams.values()
    return stream


async def test_a_look_wakes_no_reader(handler: RedisStreamResponseHandler, looks: Looks) -> None:
    """While a run is silent but alive, its readers wait on: there may be ten thousand of them."""
    attempt = await begin(handler, "c", "r")

    async def all_wait() -> bool:
        streams = list(handler.reader._follower._streams.values())
        return bool(streams) and len(streams[0]._waiters) == READERS

    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        reads = [group.create_task(read_all(handler, "c")) for _ in range(READERS)]
        await until(all_wait)
        waiting: list[Any] = list(the_stream(handler)._waiters)
        await until(looks.are_several)
        assert the_stream(handler)._waiters == waiting
        await handler.runs.append(attempt, 0, [text("0"), COMPLETED])
    assert [text_of(read.result()) for read in reads] == ["0"] * READERS


async def test_a_look_finds_what_nobody_told_of(
    handler: RedisStreamResponseHandler, redis: Redis, looks: Looks
) -> None:
    """An entry whose message was lost is read when its stream is looked at."""
    await begin(handler, "c", "r")
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        read = group.create_task(read_all(handler, "c"))
        await until(looks.are_several)
        fields: Any = {"text": "0", "sequence": "0", "timestamp": "1", "run": "r"}
        end: Any = {"text": "", "sequence": "1", "timestamp": "1", "run": "r", "done": "true"}
        await redis.xadd(keys_of("c").stream, fields)
        await redis.xadd(keys_of("c").stream, end)
        await redis.pexpire(keys_of("c").stream, 60_000)
    assert text_of(read.result()) == "0"


async def test_a_look_that_breaks(
    handler: RedisStreamResponseHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong with a look, readers are given signs of life, and the log says so."""

    def broken(*_: Any) -> None:
        raise ValueError("secret")

    monkeypatch.setattr("streaming.reading.patrol.INTERVAL", timedelta(milliseconds=10))
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(milliseconds=20))
    monkeypatch.setattr(ProducerWatch, "look", broken)
    await begin(handler, "c", "r")
    opened = await handler.reader.open("c", heartbeat=timedelta(milliseconds=100))
    async with asyncio.timeout(BOUND):
        assert [await anext(opened) for _ in range(3)] == [[]] * 3
    await opened.aclose()
    assert "silent stream not looked at: error=ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_stream_that_is_lost_while_all_is_silent(
    handler: RedisStreamResponseHandler, redis: Redis, looks: Looks
) -> None:
    """Readers who wait are told, though no message says that Redis has forgotten all of it."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("0")])
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        reads = [group.create_task(read_all(handler, "c")) for _ in range(READERS)]
        await until(looks.are_several)
        await redis.flushdb()
    assert [[chunk.code for chunk in read.result()] for read in reads] == [[None, "stream_lost"]] * READERS


async def test_a_producer_that_dies_while_all_is_silent(
    handler: RedisStreamResponseHandler, redis: Redis, looks: Looks
) -> None:
    """Readers who wait are told once the lease has lapsed, though nothing comes."""
    await begin(handler, "c", "r")
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        reads = [group.create_task(read_all(handler, "c")) for _ in range(READERS)]
        await until(looks.are_several)
        await redis.hset(keys_of("c").run("r"), "lease", "1")
    assert [[chunk.code for chunk in read.result()] for read in reads] == [["interrupted"]] * READERS
