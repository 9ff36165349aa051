"""Helpers that read streams in tests, with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from redis.asyncio import Redis, RedisCluster

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import is_cluster
from streaming.entries import NewEntry, RunStatus, StreamChunk
from streaming.identifiers import keys_of
from streaming.reading.open_stream import OpenStream
from streaming.store.run_states import Attempt
from streaming.text_blocks import chunks_of

#: Nothing here takes a tenth of it on a quiet machine; a hang is to fail, not to last.
BOUND = 30.0


async def read_all(
    handler: RedisStreamResponseHandler,
    conversation: str,
    cursor: str | None = None,
    *,
    run: str | None = None,
    events: bool = True,
) -> list[StreamChunk]:
    """All that ``read_stream`` gives until it ends."""
    async with asyncio.timeout(BOUND):
        return [chunk async for chunk in handler.read_stream(conversation, cursor, run=run, events=events)]


def text_of(chunks: list[StreamChunk]) -> str:
    """The text that a reader shows in the end."""
    texts: list[str] = []
    for chunk in chunks:
        if chunk.type == "reset":
            texts.clear()
        texts.append(chunk.text or "")
    return "".join(texts)


class LiveReader:
    """Takes chunks from an open read one by one."""

    def __init__(self, opened: OpenStream) -> None:
        self.opened = opened
        self._batches = opened
        self._chunks: list[StreamChunk] = []

    async def next(self) -> StreamChunk:
        """The next chunk."""
        async with asyncio.timeout(BOUND):
            while not self._chunks:
                self._chunks = list(chunks_of(await anext(self._batches)))
        return self._chunks.pop(0)

    async def rest(self) -> list[StreamChunk]:
        """All chunks to the end of the read."""
        async with asyncio.timeout(BOUND):
            rest = self._chunks + [chunk async for batch in self._batches for chunk in chunks_of(batch)]
        self._chunks = []
        return rest

    async def aclose(self) -> None:
        """Leave, as a client that disconnects."""
        await self._batches.aclose()


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something has happened, with a bound. For what no event tells of."""
    async with asyncio.timeout(BOUND):
        while not await happened():  # noqa: ASYNC110 - another process's doing sets no event here
            await asyncio.sleep(0)


async def subscribers(redis: Redis, count: int) -> bool:
    """Whether so many connections listen for entries of conversation ``c``."""
    channel = keys_of("c").channel
    if not is_cluster(redis):
        return bool(await redis.pubsub_numsub(channel) == [(channel.encode(), count)])
    # Each node counts its own.
    cluster = cast("RedisCluster", redis)
    nodes = cluster.get_nodes()
    told = [await cluster.execute_command("PUBSUB NUMSUB", channel, target_nodes=node) for node in nodes]
    return bool(sum(listening for counted in told for _, listening in counted) == count)


def text(content: str) -> NewEntry:
    return NewEntry(timestamp=1, text=content)


COMPLETED = NewEntry(timestamp=1, status=RunStatus.COMPLETED)


async def begin(
    handler: RedisStreamResponseHandler, conversation: str, run: str, owner: str = "worker"
) -> Attempt:
    return await handler.begin_run(conversation, run, agent="Agent", owner=owner)


async def complete_run(
    handler: RedisStreamResponseHandler, conversation: str, run: str, *texts: str
) -> Attempt:
    """A whole run with these chunks."""
    attempt = await begin(handler, conversation, run)
    await handler.runs.append(attempt, 0, [*map(text, texts), COMPLETED])
    return attempt
