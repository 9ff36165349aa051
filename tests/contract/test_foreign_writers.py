"""Streams whose writers publish nothing, and those of whom that can't be known: docs/decisions/0002."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.identifiers import keys_of
from streaming.reading.live_stream import LiveStream
from tests.contract.reading import until

BOUND = 10.0


@pytest.fixture(params=["told", "not told"], autouse=True)
def _tells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether Redis says what changes. The fake never does."""

    async def refuse(_connection: AbstractConnection) -> None:
        raise ResponseError("unknown command")

    if request.param == "not told":
        monkeypatch.setattr("streaming.reading.tracked_connection._ask", refuse)


class Reading:
    """Reads a conversation to its end."""

    def __init__(self, handler: RedisStreamResponseHandler, conversation: str) -> None:
        self._handler = handler
        self._conversation = conversation
        self.text = ""

    async def read(self) -> str:
        """All of its text."""
        async for chunk in self._handler.read_stream(self._conversation):
            self.text += chunk.text or ""
        return self.text

    def stream(self) -> LiveStream | None:
        """What follows it, once it is followed."""
        follower = self._handler.reader._follower
        return follower._streams.get(keys_of(self._conversation).channel)

    async def is_blocked_on(self) -> bool:
        """Whether a read that needs no message waits for what comes."""
        stream = self.stream()
        return stream is not None and self._handler.reader._follower._foreign.follows(stream)

    async def is_known_to_publish(self) -> bool:
        """Whether its writer was heard of, and nothing but messages is waited for."""
        stream = self.stream()
        return stream is not None and stream.publishes and not await self.is_blocked_on()


async def add(redis: Redis, conversation: str, text: str, *, is_done: bool = False) -> None:
    """Append as any program may."""
    fields: Any = {"text": text, **({"done": "true"} if is_done else {})}
    await redis.xadd(keys_of(conversation).stream, fields)


async def test_a_writer_that_publishes_costs_no_other_read(handler: RedisStreamResponseHandler) -> None:
    """Once a writer of chunks was heard of, its stream is not read besides: there may be thousands."""
    reading = Reading(handler, "c")
    await handler.write_chunk("c", "0", 0)
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        read = group.create_task(reading.read())
        await until(reading.is_blocked_on)
        for number in range(1, 4):
            await handler.write_chunk("c", str(number), number)
        await until(reading.is_known_to_publish)
        await handler.write_completion("c", 4)
    assert read.result() == "0123"


async def test_a_writer_that_publishes_no_more(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that has been silent is read without messages again: who appends next may send none."""
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(milliseconds=500))
    reading = Reading(handler, "c")
    await handler.write_chunk("c", "0", 0)
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        read = group.create_task(reading.read())
        await until(reading.is_blocked_on)
        await handler.write_chunk("c", "1", 1)
        await until(reading.is_known_to_publish)
        await until(reading.is_blocked_on)
        await add(redis, "c", "2")
        await add(redis, "c", "", is_done=True)
    assert read.result() == "012"


async def test_more_streams_than_one_read_takes(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many streams have writers that publish nothing, all of them are followed."""
    monkeypatch.setattr("streaming.reading.blocking_reads.BLOCKED_AT_ONCE", 2)
    readings = {f"foreign{number}": Reading(handler, f"foreign{number}") for number in range(5)}
    for conversation in readings:
        await add(redis, conversation, "0")
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        reads = [group.create_task(reading.read()) for reading in readings.values()]
        for reading in readings.values():
            await until(reading.is_blocked_on)
        for number in range(1, 4):
            for conversation, reading in readings.items():
                await add(redis, conversation, str(number))
                has_come = "".join(map(str, range(number + 1)))

                async def is_there(reading: Reading = reading, has_come: str = has_come) -> bool:
                    return reading.text == has_come

                await until(is_there)
        for conversation in readings:
            await add(redis, conversation, "", is_done=True)
    assert [read.result() for read in reads] == ["0123"] * 5
