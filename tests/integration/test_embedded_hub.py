"""The embedded task hub: its entities are kept in Redis, and in memory only while somebody uses them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from durabletask.entities import EntityContext, EntityInstanceId
from durabletask.testing import InMemoryOrchestrationBackend
from redis.asyncio import Redis

from hosting.durable_agents import DurableAgents, HubConnection, connect_hub
from hosting.embedded import entity_store, task_hub
from hosting.embedded.entity_store import EntityStore
from hosting.embedded.redis_server import EmbeddedRedis
from hosting.embedded.task_hub import EmbeddedTaskHub
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from tests.service import PATIENCE, eventually, free_port

TTL = timedelta(minutes=1)
#: An entity is idle after this: short, so that tests see it leave the memory.
IDLE = timedelta(milliseconds=200)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows-only stand-in: no server process")


@dataclass
class Notes:
    """A hub with an entity that notes down what it is told; ``wait`` makes it wait for ``go``."""

    connection: HubConnection
    hub: EmbeddedTaskHub
    store: EntityStore
    go: threading.Event = field(default_factory=threading.Event)

    def execute(self, context: EntityContext, note: Any) -> None:
        """The entity."""
        if note == "wait":
            self.go.wait(PATIENCE)
        context.set_state([*context.get_state(list, []), note])

    async def tell(self, conversation: str, note: str) -> None:
        """Signal the conversation's entity."""
        await self.connection.client.signal_entity(notes_of(conversation), "note", note)

    async def of(self, conversation: str) -> list[str]:
        """What the conversation's entity has noted down."""
        entity = await self.connection.client.get_entity(notes_of(conversation))
        state = entity.get_state() if entity is not None else None
        return list(json.loads(state)) if state else []

    async def noted(self, conversation: str, *notes: str) -> None:
        """Wait until these are its notes."""

        async def has_them() -> bool:
            return await self.of(conversation) == list(notes)

        await eventually(has_them, f"{conversation} has {notes}")

    async def is_forgotten(self) -> bool:
        """Whether no entity is in memory."""
        return not self.hub._entities

    async def close(self) -> None:
        """Stop the hub."""
        self.go.set()
        await DurableAgents(self.connection, _no_callback()).close()


def _no_callback() -> RedisStreamCallback:
    def no_handler() -> RedisStreamResponseHandler:
        raise AssertionError("no agent runs here")

    return RedisStreamCallback(no_handler)


def notes_of(conversation: str) -> EntityInstanceId:
    return EntityInstanceId("notes", conversation)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A server that keeps its port over a restart."""
    running = await EmbeddedRedis(tmp_path / "data", port=free_port()).start()
    yield running
    await running.stop()


@pytest.fixture
async def redis(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A client of that server."""
    async with Redis.from_url(server.url, decode_responses=True, protocol=2) as client:
        yield client


@pytest.fixture
async def start_hub(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], Awaitable[Notes]]]:
    """Starts hubs on that server, each with nothing in memory."""
    monkeypatch.setattr(entity_store, "SAVE_TIMEOUT", timedelta(milliseconds=300))
    # A load that takes too long is an error, also where a busy machine is the reason.
    monkeypatch.setattr(entity_store, "LOAD_TIMEOUT", timedelta(seconds=PATIENCE))
    monkeypatch.setattr(entity_store, "CLOSE_TIMEOUT", timedelta(milliseconds=300))
    monkeypatch.setattr(task_hub, "IDLE_TIME", IDLE)
    started: list[Notes] = []

    async def start() -> Notes:
        store = EntityStore(connect(server.url), TTL)
        connection = connect_hub(None, store)
        assert connection.embedded is not None
        notes = Notes(connection, connection.embedded, store)
        connection.worker.add_entity(notes.execute, "notes")
        connection.worker.start()  # type: ignore[no-untyped-call]  # the library's
        started.append(notes)
        return notes

    yield start
    for notes in started:
        await notes.close()


StartHub = Callable[[], Awaitable[Notes]]


def test_backend_still_has_the_names_that_the_hub_uses() -> None:
    """The library's private names that the hub rests on are where they were: look at the hub if not."""
    backend = InMemoryOrchestrationBackend()
    assert backend._entities == {}
    assert backend._entity_in_flight == set()
    assert isinstance(backend._next_completion_token, int)
    assert isinstance(backend._lock, type(threading.RLock()))
    assert isinstance(backend._shutdown_event, threading.Event)
    assert isinstance(backend._port, int)
    assert backend._server is None


async def test_idle_worker_does_not_hang_up(start_hub: StartHub) -> None:
    """A hub where nothing happens for minutes keeps its worker: the next run begins at once, and is not lost.

    By its default the library's worker would hang up after two minutes, stay away for up to half a minute,
    and lose an operation that is on its way to it.
    """
    notes = await start_hub()
    assert notes.connection.worker._resiliency_options.silent_disconnect_timeout_seconds == 0


async def test_idle_entities_leave_the_memory_and_come_back(start_hub: StartHub) -> None:
    """However many conversations there were, an idle hub holds none of them, and knows all of them."""
    notes = await start_hub()
    for number in range(50):
        await notes.tell(f"c{number}", "one")
    for number in range(50):
        await notes.noted(f"c{number}", "one")
    await eventually(notes.is_forgotten, "the memory is empty")
    hub, store = notes.hub, notes.store
    assert not any((hub._used, hub._entity_queue, hub._entity_queue_set, hub._entity_in_flight))
    assert not any((hub._instances, store._unsaved, store._saving))
    assert await notes.of("c7") == ["one"]
    await eventually(notes.is_forgotten, "the memory is empty again")
    await notes.tell("c8", "two")
    await notes.noted("c8", "one", "two")
    assert await notes.of("never-there") == []


async def test_long_histories_come_back_whole(start_hub: StartHub) -> None:
    """A state of megabytes, and of any letters, is kept like a small one."""
    notes = await start_hub()
    long = "🗼\r\n" * 1_000_000
    await notes.tell("c", long)
    await notes.noted("c", long)
    await eventually(notes.is_forgotten, "the memory is empty")
    assert await notes.of("c") == [long]


async def test_state_is_in_redis_when_the_operation_is_acknowledged(
    start_hub: StartHub, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the worker hears that an operation is done, Redis has the state, under a key with a TTL."""
    loop, found = asyncio.get_running_loop(), asyncio.Queue[tuple[Any, int]]()
    complete, write = EmbeddedTaskHub.CompleteEntityTask, EntityStore._write

    async def look() -> None:
        key = "{agent-stream:c}:agent:notes"
        found.put_nowait((await redis.get(key), await redis.pttl(key)))

    def complete_and_look(hub: EmbeddedTaskHub, request: Any, context: Any) -> Any:
        reply = complete(hub, request, context)
        asyncio.run_coroutine_threadsafe(look(), loop).result(PATIENCE)
        return reply

    async def write_slowly(store: EntityStore, entity_id: str, state: str | None) -> None:
        await asyncio.sleep(0.2)
        await write(store, entity_id, state)

    monkeypatch.setattr(EmbeddedTaskHub, "CompleteEntityTask", complete_and_look)
    monkeypatch.setattr(EntityStore, "_write", write_slowly)
    monkeypatch.setattr(entity_store, "SAVE_TIMEOUT", timedelta(seconds=PATIENCE))
    notes = await start_hub()
    await notes.tell("c", "one")
    async with asyncio.timeout(PATIENCE):
        state, ttl = await found.get()
    assert state is not None
    assert json.loads(state) == ["one"]
    assert 0 < ttl <= TTL / timedelta(milliseconds=1)


async def test_entity_at_work_stays_in_memory(start_hub: StartHub) -> None:
    """An operation that lasts longer than the idle time keeps its entity, and what waits behind it."""
    notes = await start_hub()
    await notes.tell("alone", "wait")
    await notes.tell("queued", "wait")
    await notes.tell("queued", "two")
    await notes.tell("other", "one")
    await notes.noted("other", "one")

    async def only_they_are_left() -> bool:
        return list(notes.hub._entities) == [str(notes_of("alone")), str(notes_of("queued"))]

    await eventually(only_they_are_left, "the idle entity has left")
    await asyncio.sleep(3 * IDLE.total_seconds())
    assert await only_they_are_left()
    notes.go.set()
    await notes.noted("alone", "wait")
    await notes.noted("queued", "wait", "two")


async def test_redis_away_at_the_end_of_an_operation(
    start_hub: StartHub, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """While Redis is away operations end, what they leave waits in memory, and is saved when it is back."""
    notes = await start_hub()
    for conversation in ("a", "b"):
        await notes.tell(conversation, "wait")
    await server.stop()
    notes.go.set()
    for conversation in ("a", "b"):
        await notes.noted(conversation, "wait")
        await notes.tell(conversation, "two")
        await notes.noted(conversation, "wait", "two")

    async def is_told() -> bool:
        return "can't be saved" in caplog.text

    # The operations ended without waiting for a save to fail.
    await eventually(is_told, "the log says so")
    # Longer than the idle time: what is not saved is not forgotten.
    await asyncio.sleep(3 * IDLE.total_seconds())
    assert len(notes.hub._entities) == 2
    await server.start()
    await eventually(notes.is_forgotten, "all is saved")
    successor = await start_hub()
    assert await successor.of("a") == await successor.of("b") == ["wait", "two"]


async def test_redis_away_at_the_start_of_an_operation(
    start_hub: StartHub, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation that can't be read is refused: beginning afresh would overwrite it."""
    notes = await start_hub()
    await notes.tell("c", "one")
    await notes.noted("c", "one")
    await eventually(notes.is_forgotten, "the memory is empty")
    await server.stop()
    with monkeypatch.context() as hurry:
        hurry.setattr(entity_store, "LOAD_TIMEOUT", timedelta(milliseconds=300))
        for refused in (notes.tell("c", "lost"), notes.of("c")):
            with pytest.raises(grpc.RpcError):
                await refused
    await server.start()
    await notes.tell("c", "two")
    await notes.noted("c", "one", "two")


async def test_redis_that_hangs_holds_nobody(start_hub: StartHub, redis: Redis) -> None:
    """A Redis that takes commands and never answers delays an operation's end by a bounded time only."""
    notes = await start_hub()
    for number in range(40):
        await notes.tell(f"c{number}", "wait")
    pid = (await redis.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        notes.go.set()
        for number in range(40):
            await notes.noted(f"c{number}", "wait")
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually(notes.is_forgotten, "all is saved")
    assert await redis.dbsize() == 40


async def test_losing_turns_is_said(
    start_hub: StartHub, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub that stops while Redis is away says how many conversations lose their last turns."""
    notes = await start_hub()
    await notes.tell("c", "wait")
    await server.stop()
    notes.go.set()
    await notes.noted("c", "wait")
    await notes.store.close()
    assert "the last turns of 1 conversations are lost" in caplog.text
