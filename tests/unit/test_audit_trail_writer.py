"""Events on their way into a store that is slow, away or full: the agent never waits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection
from datetime import timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from bridges.audit_trail import writer as writing
from bridges.audit_trail.events import EventType, StoredEvent, Thread, TrailEvent
from bridges.audit_trail.memory_store import MemoryTrailStore
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch, Selection
from bridges.audit_trail.writer import BATCH_EVENTS, BUFFER_EVENTS, TrailWriter

THREAD = Thread("Agent", "c")
BOUND = timedelta(seconds=30)


class SlowStore(MemoryTrailStore):
    """Answers when it is let, and fails as often as it is told to; a failed call may have been executed."""

    def __init__(self, failures: int = 0, *, executes: bool = False) -> None:
        super().__init__(AuditTrailSettings(max_events=50_000), timedelta(hours=1))
        self.may_answer = asyncio.Event()
        self.batches: list[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self._failures = failures
        self._executes = executes

    async def append(self, batch: Batch) -> bool:
        """Wait until it may answer, then append or fail."""
        self.batches.append(len(batch.events))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_answer.wait()
        self.at_once -= 1
        if self._failures:
            self._failures -= 1
            if self._executes:
                await super().append(batch)
            raise RedisConnectionError("secret address")
        return await super().append(batch)

    async def stored(self) -> list[StoredEvent]:
        """Everything."""
        return await self.read(THREAD, Selection(limit=50_000))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RETRY_FIRST", timedelta(milliseconds=1))
    monkeypatch.setattr(writing, "RETRY_MOST", timedelta(milliseconds=1))


def new_writer(store: SlowStore, patience: timedelta = BOUND) -> TrailWriter:
    return TrailWriter(store, THREAD, "r", execution="1", request=None, sending=set(), patience=patience)


def event(text: str = "x") -> TrailEvent:
    return TrailEvent(1, EventType.STREAM, {"update_kind": "text", "text": text})


FINAL = TrailEvent(2, EventType.FINAL, {"response_text": "x" * 60_000})


async def test_events_that_come_meanwhile_share_a_batch() -> None:
    """One batch is on its way at a time; what comes meanwhile goes into the next, up to its bound."""
    store = SlowStore()
    writer = new_writer(store)
    writer.put(event())
    await asyncio.sleep(0)
    for _ in range(BATCH_EVENTS + 5):
        writer.put(event())
    store.may_answer.set()
    assert await writer.flush(BOUND)
    assert store.batches == [1, BATCH_EVENTS, 5]
    assert store.most_at_once == 1
    assert len(await store.stored()) == BATCH_EVENTS + 6


async def test_a_flush_waits_for_a_bounded_time() -> None:
    """A store that hangs holds up a flush for its time only; what waits is stored later."""
    store = SlowStore()
    writer = new_writer(store)
    writer.put(FINAL)
    assert not await writer.flush(timedelta(milliseconds=1))
    store.may_answer.set()
    assert await writer.flush(BOUND)
    assert [each.event for each in await store.stored()] == [FINAL]


async def test_what_is_sent_outlives_the_writer() -> None:
    """Nobody needs to keep a writer for its events to be stored."""
    store, sending = SlowStore(), set[asyncio.Task[None]]()
    TrailWriter(store, THREAD, "r", execution="1", request=None, sending=sending).put(FINAL)
    gc.collect()
    store.may_answer.set()
    await asyncio.gather(*sending)
    assert len(await store.stored()) == 1
    assert sending == set()


@pytest.mark.parametrize("executes", [False, True])
async def test_failures_that_pass_lose_nothing(executes: bool) -> None:
    """A batch is sent again while the store is away, also where only replies were lost: each event once."""
    store = SlowStore(failures=3, executes=executes)
    store.may_answer.set()
    writer = new_writer(store)
    for number in range(3):
        writer.put(event(str(number)))
    assert await writer.flush(BOUND)
    assert [each.event.data["text"] for each in await store.stored()] == ["0", "1", "2"]


@pytest.mark.parametrize("text", ["x", "x" * 8_000])
async def test_a_full_buffer_drops_and_counts(text: str) -> None:
    """What finds the buffer full, of events or of text, is dropped; an event in its place says how many."""
    store = SlowStore()
    writer = new_writer(store)
    writer.put(event("first"))
    await asyncio.sleep(0)
    for _ in range(BUFFER_EVENTS + 7):
        writer.put(event(text))
    writer.put(FINAL)
    store.may_answer.set()
    assert await writer.flush(BOUND)
    found = [each.event for each in await store.stored()]
    dropped = [each.data["dropped"] for each in found if each.type is EventType.DROPPED]
    kept = [each for each in found if each.type is EventType.STREAM]
    assert len(dropped) == 1
    assert len(kept) + dropped[0] == BUFFER_EVENTS + 8
    assert [each.type for each in found[-2:]] == [EventType.DROPPED, EventType.FINAL]


async def test_a_store_that_stays_away_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After its patience a writer lets go of what waits, says so without details, and counts it later."""
    store = SlowStore(failures=1)
    store.may_answer.set()
    writer = new_writer(store, patience=timedelta(0))
    writer.put(event())
    writer.put(event())
    assert await writer.flush(BOUND)
    assert "audit trail lost events, Redis is away: run=r events=2" in caplog.text
    assert "secret" not in caplog.text
    writer.put(FINAL)
    assert await writer.flush(BOUND)
    assert [each.event.type.value for each in await store.stored()] == ["dropped", "final"]


async def test_a_deleted_trail_takes_no_more() -> None:
    """Once its run is deleted, a writer sends nothing more."""
    store = SlowStore()
    store.may_answer.set()
    runs: Collection[str] = ["r"]
    await store.delete(THREAD, runs)
    writer = new_writer(store)
    for _ in range(3):
        writer.put(event())
        await writer.flush(BOUND)
    assert store.batches == [1]
    assert await store.stored() == []
