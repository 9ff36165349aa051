"""Readers of streams that other programs write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from streaming.reading.tracked_reads import TrackedReads
from tests.redis_server import RedisServer

#: Reached only by what hangs.
BOUND = 30.0


class Readers:
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

    @property
    def is_told(self) -> bool:
        """Whether Redis is asked to tell what changes, and believed."""
        return asyncio.get_running_loop().time() >= self.tracked._asked_again_at

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

        await until(all_of_them)

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


async def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened inside of this process."""
    async with asyncio.timeout(BOUND):
        while not happened():  # noqa: ASYNC110 - what happens inside sets no event
            await asyncio.sleep(0)


@asynccontextmanager
async def reading(server: RedisServer, url: str = "") -> AsyncIterator[Readers]:
    """Readers over a handler of their own, to whom a plain client adds."""
    async with (
        server.client() as redis,
        RedisStreamResponseHandler(connect(url or server.url)) as handler,
    ):
        readers = Readers(handler, redis)
        try:
            yield readers
        finally:
            await readers.leave_all()


async def tracking(redis: Redis) -> list[dict[str, Any]]:
    """The connections that Redis tells what changes."""
    return [each for each in await redis.client_list() if "t" in each["flags"]]


async def reads(redis: Redis) -> int:
    """How often streams have been read, since this was reset."""
    calls: int = (await redis.info("commandstats")).get("cmdstat_xrange", {"calls": 0})["calls"]
    return calls


async def are_tracking(redis: Redis, count: int) -> list[dict[str, Any]]:
    """Wait until there are so many of them."""
    async with asyncio.timeout(BOUND):
        while len(found := await tracking(redis)) != count:  # noqa: ASYNC110 - another process's doing sets no event here
            await asyncio.sleep(0.01)
    return found
