"""Many runs that write and many readers that read while a Redis breaks, and what must hold of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from agent_framework import AgentResponse, AgentResponseUpdate

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import GAP, RunStatus, StreamChunk
from streaming.errors import StreamUnavailable
from streaming.identifiers import keys_of
from streaming.writing.leases import LeaseKeeper
from tests.contract.reading import text_of
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said
from tests.service import eventually

#: Bounds a whole load, in seconds; one takes a few.
BOUND: Final = 100.0
TTL: Final = timedelta(minutes=10)


class PacedAgent(ScriptedAgent):
    """Says its chunks at a model's pace."""

    def __init__(self, *texts: str, pause: timedelta) -> None:
        super().__init__(*said(*texts))
        self._pause = pause.total_seconds()

    async def _updates(self) -> AsyncIterator[AgentResponseUpdate]:
        async for update in super()._updates():
            yield update
            # The pace is the load, nothing that is waited for.
            await asyncio.sleep(self._pause)


@asynccontextmanager
async def handler_on(url: str) -> AsyncIterator[RedisStreamResponseHandler]:
    """A handler as the service has one."""
    async with RedisStreamResponseHandler(connect(url), TTL) as handler:
        yield handler


@asynccontextmanager
async def leases_on(url: str) -> AsyncIterator[LeaseKeeper]:
    """A keeper of leases as the service has one."""
    leases = LeaseKeeper(lambda: connect(url), TTL)
    try:
        yield leases
    finally:
        await asyncio.to_thread(leases.close)


async def read(handler: RedisStreamResponseHandler, conversation: str, run: str = "r") -> list[StreamChunk]:
    """What a reader of a run is given to its end, one that comes back with its cursor when it is told to."""
    given: list[StreamChunk] = []
    while True:
        cursor = given[-1].entry_id if given else None
        reading = handler.read_stream(conversation, cursor, run=run, events=True)
        given += [chunk async for chunk in reading]
        if given[-1].code != StreamUnavailable.code:
            return given
        del given[-1]
        # As a client does.
        await asyncio.sleep(0.05)


class Load:
    """Runs of one handler, each in a conversation of its own, and a reader for each."""

    def __init__(
        self,
        handler: RedisStreamResponseHandler,
        leases: LeaseKeeper,
        *,
        runs: int,
        chunks: int,
        pause: timedelta = timedelta(milliseconds=15),
    ) -> None:
        self.handler = handler
        self.names = [f"c{number}" for number in range(runs)]
        self._leases = leases
        self._chunks = chunks
        self._pause = pause

    def texts(self, name: str) -> list[str]:
        """What the agent of a conversation says."""
        return [f"{name}:{number} " for number in range(self._chunks)]

    async def under(self, fault: Callable[[], Awaitable[None]]) -> dict[str, list[StreamChunk]]:
        """Let all run, break something when a third is written, and check what became of them.

        Returns what each reader was given.
        """
        async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
            for name in self.names:
                await self.handler.runs.register(name, "r", "Agent")
            readings = {name: group.create_task(read(self.handler, name)) for name in self.names}
            runs = {name: group.create_task(self._run(name)) for name in self.names}
            await self._until_written(self._chunks // 3)
            await fault()
        given = {name: reading.result() for name, reading in readings.items()}
        for name, running in runs.items():
            answer = "".join(self.texts(name))
            assert running.result().text == answer
            assert_whole(given[name], answer)
            assert_whole(await read(self.handler, name), answer)
        return given

    async def _run(self, name: str) -> AgentResponse[Any]:
        agent = PacedAgent(*self.texts(name), pause=self._pause)
        return await DurableConversation(self.handler, agent, name, self._leases).start("r")

    async def _until_written(self, count: int) -> None:
        async def is_written() -> bool:
            redis = self.handler._redis
            return min([await redis.xlen(keys_of(name).stream) for name in self.names]) >= count

        await eventually(is_written, f"{count} entries in each stream")


def assert_whole(chunks: list[StreamChunk], answer: str) -> None:
    """Every entry once, in order, the right text in the end, and one end; a reader may begin anew."""
    anew = [place for place, chunk in enumerate(chunks) if chunk.type == "reset" and not chunk.is_entry]
    chunks = chunks[anew[-1] + 1 :] if anew else chunks
    ids = [chunk.id for chunk in chunks]
    assert ids == sorted(set(ids)), "ids do not grow"
    assert GAP not in {chunk.type for chunk in chunks}
    expected = 0
    for chunk in chunks:
        if chunk.type == "reset":
            expected = 0
        assert chunk.sequence == expected, f"{chunk} instead of sequence {expected}"
        expected += 1
    assert [chunk for chunk in chunks if chunk.is_terminal] == chunks[-1:]
    assert (chunks[-1].status, text_of(chunks)) == (RunStatus.COMPLETED, answer)
