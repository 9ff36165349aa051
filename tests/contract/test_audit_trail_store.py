"""Trails in every kind of store: in memory, and in every Redis. docs/protocol.md, 5.10."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from bridges.audit_trail.events import EventType, Thread, TrailEvent
from bridges.audit_trail.memory_store import MOST_TRAILS, MemoryTrailStore
from bridges.audit_trail.redis_store import RedisTrailStore
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch, Selection, TrailStore
from streaming.connections import connect
from streaming.identifiers import EntryId

THREAD = Thread("CallbackAgent", "c")
RUN_TIMEOUT = timedelta(hours=1)
SETTINGS = AuditTrailSettings(max_events=10, ttl=timedelta(minutes=5))
ALL = Selection(limit=SETTINGS.max_events)


def event(text: str, at: int = 1_000) -> TrailEvent:
    return TrailEvent(at, EventType.STREAM, {"update_kind": "text", "text": text})


def final(text: str = "") -> TrailEvent:
    return TrailEvent(2_000, EventType.FINAL, {"response_text": text, "usage": None})


def batch(*events: TrailEvent, run: str = "r", first: int = 0, execution: str = "1") -> Batch:
    return Batch(THREAD, run, execution, first, events, f"asked by {run}")


@pytest.fixture(params=["memory", "fake", "real_redis_url", "redis_server_url", "cluster_url"])
def place(request: pytest.FixtureRequest) -> str:
    """Where trails are kept: the URL of a server, or a word."""
    is_server = request.param.endswith("_url")
    return str(request.getfixturevalue(request.param) if is_server else request.param)


@pytest.fixture
async def store(place: str) -> AsyncIterator[TrailStore]:
    """An empty store. No key may be left without a TTL."""
    if place == "memory":
        yield MemoryTrailStore(SETTINGS, RUN_TIMEOUT)
        return
    redis = FakeAsyncRedis() if place == "fake" else connect(place)
    await redis.flushall()
    yield RedisTrailStore(redis, SETTINGS, RUN_TIMEOUT)
    immortal = [key async for key in redis.scan_iter() if await redis.ttl(key) < 0]
    await redis.aclose()
    assert not immortal


async def texts(store: TrailStore, wanted: Selection = ALL) -> list[str]:
    """What is stored: texts, answers, and how many events are missing."""
    return [
        str(
            next(
                each.event.data[name]
                for name in ("text", "response_text", "dropped")
                if name in each.event.data
            )
        )
        for each in await store.read(THREAD, wanted)
    ]


async def test_events_are_read_as_they_were_appended(store: TrailStore) -> None:
    """Events come back in order, whole, with ids that grow and the message of their run."""
    first, last = event("Hé 🗼\n"), final("all")
    assert await store.append(batch(first))
    assert await store.append(batch(last, first=1))
    found = await store.read(THREAD, ALL)
    assert [each.event for each in found] == [first, last]
    assert {(each.run, each.request) for each in found} == {("r", "asked by r")}
    assert found[0].id < found[1].id


async def test_threads_are_apart(store: TrailStore) -> None:
    """Another agent's trail of the same conversation, and another conversation's, are others."""
    await store.append(batch(event("a")))
    for other in (Thread("TravelPlanner", "c"), Thread("CallbackAgent", "d")):
        assert await store.read(other, ALL) == []


async def test_a_repeated_batch_is_stored_once(store: TrailStore) -> None:
    """A batch that comes again, whole or with more, since its reply was lost, adds only what is new."""
    for _ in range(2):
        assert await store.append(batch(event("a"), event("b")))
    assert await store.append(batch(event("a"), event("b"), event("c")))
    assert await texts(store) == ["a", "b", "c"]


async def test_a_hole_is_marked(store: TrailStore) -> None:
    """Where events of an execution are missing, an event says how many, also where all before are."""
    await store.append(batch(event("c"), first=2))
    await store.append(batch(event("d"), first=3))
    await store.append(batch(final("end"), first=9))
    found = await store.read(THREAD, ALL)
    assert [each.event.type for each in found] == ["dropped", "stream", "stream", "dropped", "final"]
    assert await texts(store) == ["2", "c", "d", "5", "end"]


async def test_a_run_has_one_end(store: TrailStore) -> None:
    """After a run's end nothing more of it is taken, of whichever execution; the end may be repeated."""
    end = batch(event("a"), final("end"))
    assert await store.append(end)
    assert await store.append(end)
    assert not await store.append(batch(event("b"), first=2))
    assert not await store.append(batch(event("b"), execution="2"))
    assert await texts(store) == ["a", "end"]
    assert await store.is_settled(THREAD, "r")
    assert not await store.is_settled(THREAD, "another")


async def test_a_later_execution_has_the_run(store: TrailStore) -> None:
    """When a run is executed again, the first execution's late events are refused."""
    await store.append(batch(event("first")))
    assert await store.append(batch(event("second"), execution="2"))
    assert not await store.append(batch(event("late"), first=1))
    assert await texts(store) == ["first", "second"]


async def test_deleted_events_do_not_come_back(store: TrailStore) -> None:
    """Late events of a deleted run are refused, and of one in progress that had none; later runs are kept."""
    await store.append(batch(event("a")))
    await store.delete(THREAD, ["waiting"])
    assert not await store.append(batch(event("b"), first=1))
    assert not await store.append(batch(final("end"), first=2))
    assert not await store.append(batch(event("w"), run="waiting"))
    assert await store.read(THREAD, ALL) == []
    assert await store.is_settled(THREAD, "r")
    assert await store.append(batch(event("new"), run="next"))
    assert await texts(store) == ["new"]


async def test_deleting_what_is_not_there(store: TrailStore) -> None:
    """An unknown thread can be deleted."""
    await store.delete(THREAD, [])
    assert await store.read(THREAD, ALL) == []


async def test_a_trail_is_bounded(store: TrailStore) -> None:
    """Of a thread the newest events are kept, as many as may be; runs without events are forgotten."""
    for number in range(25):
        await store.append(batch(event(str(number)), run=f"r{number}"))
    assert await texts(store) == [str(number) for number in range(15, 25)]
    assert {each.request for each in await store.read(THREAD, ALL)} == {
        f"asked by r{n}" for n in range(15, 25)
    }
    await store.append(batch(*(event(str(number)) for number in range(100, 112)), run="long"))
    assert await texts(store) == [str(number) for number in range(102, 112)]


async def test_selections(store: TrailStore) -> None:
    """Since by id is strictly after, by time from it on; run and limit narrow it, from the oldest on."""
    await store.append(batch(event("a", 1_000), event("b", 2_000)))
    await store.append(batch(event("c", 3_000), event("d", 4_000), run="s"))
    second = (await store.read(THREAD, ALL))[1].id
    assert await texts(store, replace(ALL, after=second)) == ["c", "d"]
    assert await texts(store, replace(ALL, after=second, limit=1)) == ["c"]
    assert await texts(store, replace(ALL, after=EntryId(0, 0))) == ["a", "b", "c", "d"]
    assert await texts(store, replace(ALL, since=2_000)) == ["b", "c", "d"]
    assert await texts(store, replace(ALL, run="s")) == ["c", "d"]
    assert await texts(store, replace(ALL, run="s", since=1_500, limit=1)) == ["c"]
    assert await texts(store, replace(ALL, limit=3)) == ["a", "b", "c"]


async def test_long_trails_are_read_in_pages(redis: Redis) -> None:
    """A trail of more events than one page has is read whole, and in pages of any size."""
    store = RedisTrailStore(redis, replace(SETTINGS, max_events=2_000), RUN_TIMEOUT)
    for first in range(0, 1_200, 100):
        await store.append(batch(*(event(str(first + number)) for number in range(100)), first=first))
    assert await texts(store, Selection(limit=2_000)) == [str(number) for number in range(1_200)]
    assert len(await texts(store, Selection(limit=501))) == 501


async def test_keys_expire(redis: Redis) -> None:
    """A trail's keys are beside its stream and slide with each append; its marks outlive the longest run."""
    store = RedisTrailStore(redis, SETTINGS, RUN_TIMEOUT)
    await store.append(batch(event("a")))
    keys = {key.decode() async for key in redis.scan_iter()}
    kinds = ("trail", "trail-order", "trail-runs")
    assert keys == {f"{{agent-stream:c}}:{kind}:CallbackAgent" for kind in kinds}
    for key in keys:
        await redis.pexpire(key, 1_000)
    await store.append(batch(event("b"), first=1))
    for key in keys:
        assert 290 < await redis.ttl(key) <= 300
    await store.delete(THREAD, [])
    marks = "{agent-stream:c}:trail-deleted:CallbackAgent"
    assert [key.decode() async for key in redis.scan_iter()] == [marks]
    assert 3_890 < await redis.ttl(marks) <= 3_900


async def test_memory_is_bounded_in_time_and_number() -> None:
    """In memory too a trail goes when its time is over, its mark later, and the oldest of too many."""
    now = 0.0
    store = MemoryTrailStore(SETTINGS, RUN_TIMEOUT, clock=lambda: now)
    await store.append(batch(event("a")))
    now = 200.0
    await store.append(batch(event("b"), first=1))
    now = 499.0
    assert await texts(store) == ["a", "b"]
    await store.delete(THREAD, [])
    await store.append(batch(event("x"), run="other"))
    now = 800.0
    assert await texts(store) == []
    assert not await store.append(batch(event("c"), first=2))
    now += 3_901.0
    assert await store.append(batch(event("c"), first=2))
    for number in range(MOST_TRAILS + 1):
        await store.append(replace(batch(event("y")), thread=Thread("CallbackAgent", f"c{number}")))
    assert await store.read(Thread("CallbackAgent", "c0"), ALL) == []
    assert len(await store.read(Thread("CallbackAgent", f"c{MOST_TRAILS}"), ALL)) == 1
