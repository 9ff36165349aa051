"""The writer while Redis misbehaves: docs/protocol.md, section 3."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry
from streaming.errors import AttemptFenced, StreamUnavailable
from streaming.store.run_states import Appended, Attempt
from streaming.store.run_store import RunStore
from streaming.writing import writer as writer_module
from streaming.writing.run_control import RunControl
from streaming.writing.writer import BATCH_ENTRIES, RunWriter
from tests.appending import sending_by
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of


class FaultyStore(RunStore):
    """A store that works, but for the faults it was given."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        # As its own constructor would.
        self.telemetry = store.telemetry  # type: ignore[misc]
        self.before: list[RedisError] = []
        #: Raised after the append was executed: its reply is lost.
        self.after: list[RedisError] = []
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.send_append = sending_by(self.append)  # type: ignore[method-assign]

    async def append(self, attempt: Attempt, first: int, entries: Sequence[NewEntry]) -> Appended:
        """Append, or fail."""
        await self.gate.wait()
        if self.before:
            raise self.before.pop()
        appended = await self._store.append(attempt, first, entries)
        self.batches.append(len(entries))
        if self.after:
            raise self.after.pop()
        return appended


@pytest.fixture
def store(handler: RedisStreamResponseHandler) -> FaultyStore:
    """The handler's store, with faults."""
    return FaultyStore(handler.runs)


async def new_writer(
    handler: RedisStreamResponseHandler, store: FaultyStore, patience: timedelta = writer_module.PATIENCE
) -> RunWriter:
    attempt = await begin(handler, "c", "r")
    return RunWriter(store, attempt, RunControl("c", "r"), patience=patience)


async def test_a_lease_that_an_append_renewed_is_told(handler: RedisStreamResponseHandler) -> None:
    """Whoever keeps the run's lease hears when an append renewed it: not later than Redis did."""
    control = RunControl("c", "r")
    writer = RunWriter(handler.runs, await begin(handler, "c", "r"), control)
    before = time.monotonic()
    await writer.put(text("0"))
    await writer.flush()
    renewed_at = control.lease_renewed_at
    # A loop's clock may count in milliseconds.
    assert before - 0.002 <= renewed_at <= time.monotonic()
    await writer.put(text("1"))
    await writer.flush()
    assert control.lease_renewed_at == renewed_at


async def test_a_lost_reply_stores_nothing_twice(
    handler: RedisStreamResponseHandler, store: FaultyStore
) -> None:
    """Replies lost at every second append change nothing of what readers get."""
    writer = await new_writer(handler, store)
    for number in range(10):
        store.after.append(RedisConnectionError("reset by peer"))
        await writer.put(text(f"{number} "))
        await writer.flush()
    await writer.put(COMPLETED)
    await writer.flush()
    chunks = await read_all(handler, "c")
    assert text_of(chunks) == "".join(f"{number} " for number in range(10))
    assert [chunk.sequence for chunk in chunks] == list(range(11))


@pytest.mark.parametrize(
    "fault", [RedisConnectionError("x"), OutOfMemoryError("OOM"), ReadOnlyError("READONLY")]
)
async def test_what_waits_is_written_when_redis_is_back(
    handler: RedisStreamResponseHandler, store: FaultyStore, fault: RedisError
) -> None:
    """While Redis refuses, nothing is dropped; afterwards everything is there, in order."""
    writer = await new_writer(handler, store)
    store.before = [fault] * 3
    for number in range(30):
        await writer.put(text(f"{number} "))
    await writer.put(COMPLETED)
    await writer.flush()
    assert [chunk.sequence for chunk in await read_all(handler, "c")] == list(range(31))


async def test_what_arrives_meanwhile_goes_into_the_next_batch(
    handler: RedisStreamResponseHandler, store: FaultyStore
) -> None:
    """The first entry leaves alone, and one batch takes all that came while it was under way."""
    writer = await new_writer(handler, store)
    store.gate.clear()
    for number in range(20):
        await writer.put(text(f"{number}"))
        await asyncio.sleep(0)
    store.gate.set()
    await writer.flush()
    assert store.batches == [1, 19]


async def test_batches_are_bounded(handler: RedisStreamResponseHandler, store: FaultyStore) -> None:
    """However much waits, a batch is no larger than its limits."""
    writer = await new_writer(handler, store)
    for number in range(BATCH_ENTRIES * 2 + 5):
        await writer.put(text(f"{number} "))
    for _ in range(3):
        await writer.put(text("x" * 600_000))
    await writer.flush()
    assert max(store.batches) == BATCH_ENTRIES
    assert store.batches[-2:] == [1, 1]


async def test_a_full_buffer_makes_the_agent_wait(
    handler: RedisStreamResponseHandler, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: with a full buffer, handing over waits until Redis has taken some."""
    monkeypatch.setattr(writer_module, "BUFFER_ENTRIES", 5)
    writer = await new_writer(handler, store)
    store.gate.clear()
    for _ in range(5):
        await writer.put(text("x"))
    sixth = asyncio.create_task(writer.put(text("y")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not sixth.done()
    store.gate.set()
    await sixth
    await writer.flush()
    assert sum(store.batches) == 6


async def test_patience_has_an_end(handler: RedisStreamResponseHandler, store: FaultyStore) -> None:
    """When Redis stays away past the limit, the one who waits is told."""
    writer = await new_writer(handler, store, patience=timedelta(milliseconds=50))
    store.before = [RedisConnectionError("away")] * 100
    await writer.put(text("x"))
    with pytest.raises(StreamUnavailable):
        await writer.flush()
    with pytest.raises(StreamUnavailable):
        await writer.put(text("y"))


async def test_a_fenced_writer_is_told(handler: RedisStreamResponseHandler, store: FaultyStore) -> None:
    """After a later attempt has taken over, handing over raises."""
    writer = await new_writer(handler, store)
    await begin(handler, "c", "r", owner="another")
    await writer.put(text("x"))
    with pytest.raises(AttemptFenced):
        await writer.flush()


async def test_a_cancelled_flush_loses_nothing(
    handler: RedisStreamResponseHandler, store: FaultyStore
) -> None:
    """Cancelling the one who waits leaves the writer at work; no task is left at its end."""
    writer = await new_writer(handler, store)
    store.gate.clear()
    await writer.put(text("x"))
    waiting = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    waiting.cancel()
    store.gate.set()
    await writer.flush()
    assert store.batches == [1]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "stream-writer"]
