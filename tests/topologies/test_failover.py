"""A master is lost in mid-run: readers and writers go on, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import RunStatus, StreamChunk
from streaming.identifiers import keys_of
from streaming.store.run_states import Appended
from streaming.writing.leases import LeaseKeeper
from tests.appending import sending_by
from tests.contract.reading import text_of
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, Step, said
from tests.topologies.servers import PATIENCE, Cluster, SentinelGroup, answers, start_server, valkey, wait_for

TTL: Final = timedelta(minutes=10)
READERS: Final = 2
#: Enough to have some in each part of a cluster.
CONVERSATIONS: Final = 9
PART: Final = 40


class Reader:
    """Reads a conversation as a client does, and keeps what it got."""

    def __init__(self, handler: RedisStreamResponseHandler, conversation: str) -> None:
        self.chunks: list[StreamChunk] = []
        self.progress = asyncio.Event()
        self._stream = handler.read_stream(conversation, events=True)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for chunk in self._stream:
            self.chunks.append(chunk)
            self.progress.set()

    async def has(self, text: str) -> None:
        """Wait until it shows this text."""
        async with asyncio.timeout(PATIENCE):
            while text not in text_of(self.chunks):
                self.progress.clear()
                await self.progress.wait()

    async def end(self) -> list[StreamChunk]:
        """All that it got."""
        async with asyncio.timeout(PATIENCE):
            await self.task
        return self.chunks


class Talk:
    """A conversation with one run in three parts, and its readers."""

    def __init__(self, handler: RedisStreamResponseHandler, name: str, leases: LeaseKeeper) -> None:
        self.name = name
        self.handler = handler
        self.gates = [asyncio.Event(), asyncio.Event()]
        self.parts = [[f"{name}.{part}.{number} " for number in range(PART)] for part in range(3)]
        steps: list[Step] = [*said(*self.parts[0]), self.gates[0], *said(*self.parts[1])]
        steps += [self.gates[1], *said(*self.parts[2])]
        self.running = DurableConversation(handler, ScriptedAgent(*steps), name, leases).start(f"run-{name}")
        self.readers = [Reader(handler, name) for _ in range(READERS)]

    @property
    def text(self) -> str:
        """What everybody is to have in the end."""
        return "".join("".join(part) for part in self.parts)

    async def shows(self, part: int) -> None:
        """Wait until all readers have this part."""
        await asyncio.gather(*(reader.has(self.parts[part][-1]) for reader in self.readers))

    async def ends_well(self) -> list[list[StreamChunk]]:
        """Wait for the end of the run and of its readers; what each of them got."""
        async with asyncio.timeout(PATIENCE):
            response = await self.running
        assert response.text == self.text
        everything = [await reader.end() for reader in self.readers]
        everything.append(await Reader(self.handler, self.name).end())
        for chunks in everything:
            ids = [chunk.entry_id for chunk in chunks if chunk.type != "gap"]
            assert len(ids) == len(set(ids)), "an entry came twice"
            assert text_of(chunks) == self.text
            assert chunks[-1].status is RunStatus.COMPLETED
        return everything


async def test_a_server_with_an_append_only_file_goes_on_after_a_crash(tmp_path: Path) -> None:
    """One server that syncs what it acknowledges loses nothing when it is killed: its runs go on."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    server = start_server(valkey(), tmp_path, *options)
    await wait_for(lambda: answers(server.port), "the server answers")
    url = f"redis://127.0.0.1:{server.port}/0"
    leases = LeaseKeeper(lambda: connect(url), TTL)
    try:
        async with RedisStreamResponseHandler(connect(url), TTL) as handler:
            talk = Talk(handler, "c", leases)
            await talk.shows(0)
            server.kill()
            talk.gates[0].set()
            server = start_server(valkey(), tmp_path, *options, port=server.port)
            await talk.shows(1)
            talk.gates[1].set()
            for chunks in await talk.ends_well():
                assert "reset" not in [chunk.type for chunk in chunks]
    finally:
        await asyncio.to_thread(leases.close)
        server.kill()


@pytest.fixture
async def handler(topology: Cluster | SentinelGroup) -> AsyncIterator[RedisStreamResponseHandler]:
    """A handler on the topology."""
    async with RedisStreamResponseHandler(connect(topology.url), TTL) as made:
        yield made


@pytest.fixture
async def leases(topology: Cluster | SentinelGroup) -> AsyncIterator[LeaseKeeper]:
    """Keeps the runs' leases, as in a service."""
    keeper = LeaseKeeper(lambda: connect(topology.url), TTL)
    yield keeper
    await asyncio.to_thread(keeper.close)


async def test_a_lost_master_costs_nobody_anything(
    topology: Cluster | SentinelGroup, handler: RedisStreamResponseHandler, leases: LeaseKeeper
) -> None:
    """Runs that were in progress go on with the new master; each reader has each chunk once, and the end."""
    talks = [Talk(handler, f"c{number}", leases) for number in range(CONVERSATIONS)]
    await asyncio.gather(*(talk.shows(0) for talk in talks))
    await topology.lose_master(keys_of("c0").stream)
    for talk in talks:
        talk.gates[0].set()
    await asyncio.gather(*(talk.shows(1) for talk in talks))
    for talk in talks:
        talk.gates[1].set()
    await asyncio.gather(*(talk.ends_well() for talk in talks))


async def test_streams_of_foreign_writers_are_followed_to_the_new_master(
    topology: Cluster | SentinelGroup, handler: RedisStreamResponseHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other programs add is told of by whichever server has the stream, also after a failover."""
    # What is not told of is not found by the look that readers have besides.
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(hours=1))
    redis = connect(topology.url)
    names = [f"foreign{number}" for number in range(CONVERSATIONS)]

    async def add(text: str) -> None:
        for name in names:
            async with asyncio.timeout(PATIENCE):
                while True:
                    with contextlib.suppress(RedisError):
                        await redis.xadd(keys_of(name).stream, {"text": text})
                        break
                    await asyncio.sleep(0.05)

    await add("one ")
    readers = [Reader(handler, name) for name in names]
    for text in ("one ", "two ", "three "):
        if text != "one ":
            await add(text)
        await asyncio.gather(*(reader.has(text) for reader in readers))
        if text == "two ":
            await topology.lose_master(keys_of(names[0]).stream)
    for reader in readers:
        ids = [chunk.entry_id for chunk in reader.chunks]
        assert len(ids) == len(set(ids)), "an entry came twice"
        reader.task.cancel()
    await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
    await redis.aclose()


async def test_an_entry_that_was_read_and_then_lost_is_not_read_twice(
    topology: Cluster | SentinelGroup,
    handler: RedisStreamResponseHandler,
    leases: LeaseKeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers saw it, the replica never did, and the writer never had a reply: it is appended once more."""
    talk = Talk(handler, "read", leases)
    await talk.shows(0)
    await topology.cut_replicas(keys_of("read").stream)
    append, lost = handler.runs.append, asyncio.Event()

    async def lose_reply(*arguments: Any) -> Appended:
        appended = await append(*arguments)
        if not lost.is_set():
            lost.set()
            text = arguments[2][-1].text
            await asyncio.gather(*(reader.has(text) for reader in talk.readers))
            await topology.lose_master(keys_of("read").stream)
            raise RedisConnectionError
        return appended

    monkeypatch.setattr(handler.runs, "send_append", sending_by(lose_reply))
    for gate in talk.gates:
        gate.set()
    await talk.ends_well()
    assert lost.is_set()


async def test_acknowledged_entries_that_a_failover_loses_are_written_again(
    topology: Cluster | SentinelGroup, handler: RedisStreamResponseHandler, leases: LeaseKeeper
) -> None:
    """Replication is asynchronous: what the new master never got is written again, after a reset."""
    talk = Talk(handler, "acknowledged", leases)
    await talk.shows(0)
    await topology.cut_replicas(keys_of("acknowledged").stream)
    talk.gates[0].set()
    await talk.shows(1)
    await topology.lose_master(keys_of("acknowledged").stream)
    talk.gates[1].set()
    for chunks in (await talk.ends_well())[:READERS]:
        assert "reset" in [chunk.type for chunk in chunks]
