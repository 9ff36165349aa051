"""The cause of each failure, found from what the inspector shows of a real service."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from inspector.causes import causes
from inspector.examination import Examination, examine
from inspector.recording import record_from_redis
from streaming.commands import Commands
from streaming.connections import connect
from streaming.store.conversations import Conversations
from streaming.store.stored_entries import newest_entry
from tests.chaos.faulty_runs import FAULTY, Step, cancel, start, status_of
from tests.faulty_service import SECRET
from tests.service import Service, connect_http, eventually, running_service, start_service

#: Long enough for every step below, and soon over.
TIMEOUT_MINUTES = "0.02"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose agent fails as it is told to, and whose runs may take a second."""
    data_dir = tmp_path_factory.mktemp("faulty") / "data"
    with running_service(data_dir, program=FAULTY, RUN_TIMEOUT_MINUTES=TIMEOUT_MINUTES) as running:
        yield running


@pytest.fixture
async def faulty_http(faulty: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with connect_http(faulty) as client:
        yield client


async def told_of(redis: Redis, conversation: str) -> tuple[str, Examination]:
    """The causes that are told of the latest run, and all there is."""
    recording = await record_from_redis(Conversations(Commands(redis)), conversation)
    examined = await examine(recording)
    return " ".join(causes(examined.runs[-1], recording.stored.now)), examined


async def ended(http: httpx.AsyncClient, *steps: Step, stop_it: bool = False) -> str:
    """Let a run end; its conversation."""
    run = await start(http, *steps, conversation_id=uuid4().hex)

    async def is_going_on() -> bool:
        return bool((await status_of(http, run)).get("entries"))

    async def has_ended() -> bool:
        return (await status_of(http, run))["status"] not in ("Pending", "Running")

    if stop_it:
        await eventually(is_going_on, "the run has begun")
        await cancel(http, run)
    await eventually(has_ended, "the run ends")
    return str(run["conversation_id"])


@pytest.mark.parametrize(
    ("steps", "sentences"),
    [
        (
            [{"say": "Hello ", "times": 3}, {"raise": SECRET}],
            ["The agent or its model raised an error in the middle of its text, after 3 entries"],
        ),
        (
            [{"raise": SECRET}],
            ["error before it had given anything", "agent failed: conversation="],
        ),
        (
            [{"call": "wait"}, {"raise": SECRET}],
            ["raised an error after the tool wait had answered"],
        ),
        ([{"call": "explode"}, {"say": "sorry"}], ["Tools failed: explode"]),
        ([{"say": "a"}, {"stall": 60}], ["longer than RUN_TIMEOUT_MINUTES", "in the middle of its text"]),
        (
            [{"say": "a"}, {"call": "wait", "seconds": 60}],
            ["longer than RUN_TIMEOUT_MINUTES", "while it waited for the tool wait"],
        ),
        ([{"say": "fine"}], []),
    ],
)
async def test_the_cause_of_an_end_is_shown(
    faulty: Service, faulty_http: httpx.AsyncClient, steps: list[Step], sentences: list[str]
) -> None:
    """A model or tool that fails or hangs is told apart from others, and breaks no invariant."""
    conversation = await ended(faulty_http, *steps)
    async with connect(faulty.redis_url) as redis:
        told, examined = await told_of(redis, conversation)
    assert [sentence for sentence in sentences if sentence not in told] == []
    assert bool(told) == bool(sentences)
    assert SECRET not in told
    assert list(examined.findings) == []


async def test_a_cancel_is_shown(faulty: Service, faulty_http: httpx.AsyncClient) -> None:
    """A run that somebody stopped says so."""
    conversation = await ended(faulty_http, {"say": "a", "times": 5}, {"stall": 60}, stop_it=True)
    async with connect(faulty.redis_url) as redis:
        told, examined = await told_of(redis, conversation)
    assert "Somebody asked for it to be stopped in the middle of its text, after 5 entries" in told
    assert list(examined.findings) == []


async def test_a_flush_is_shown(faulty: Service, faulty_http: httpx.AsyncClient) -> None:
    """A stream that Redis lost in mid-run is told as such, and is sound again."""
    steps: list[Step] = [{"say": "a", "times": 5}, {"stall": 0.5}, {"say": "b"}]
    run = await start(faulty_http, *steps)
    async with connect(faulty.redis_url) as redis:

        async def has_begun() -> bool:
            return bool(await redis.exists(f"agent-stream:{run['conversation_id']}"))

        await eventually(has_begun, "the run has begun")
        await redis.flushall()

        async def has_ended() -> bool:
            newest = await newest_entry(Commands(redis), f"agent-stream:{run['conversation_id']}")
            return newest is not None and newest.is_done

        await eventually(has_ended, "the run ends")
        told, examined = await told_of(redis, run["conversation_id"])
    assert "again, as attempt 2: Redis lost what it had" in told
    assert list(examined.findings) == []


async def test_a_killed_worker_is_shown(tmp_path: Path) -> None:
    """A run whose process was killed is told as one without a producer, and then as interrupted."""
    service = start_service(tmp_path / "data", program=FAULTY)
    try:
        async with connect_http(service) as http:
            run = await start(http, {"say": "a", "times": 5}, {"stall": 60})

            async def has_begun() -> bool:
                return bool((await status_of(http, run)).get("entries"))

            await eventually(has_begun, "the run has begun")
    finally:
        service.stop(signal.SIGKILL)
    conversation = run["conversation_id"]
    with running_service(tmp_path / "data", program=FAULTY) as again:
        async with connect(again.redis_url) as redis:
            told, examined = await told_of(redis, conversation)
    assert "The process that executed the run is gone" in told
    assert "in the middle of its text, after 5 entries" in told
    assert list(examined.findings) == []


async def test_a_lost_producer_is_found(faulty: Service) -> None:
    """A run that says it is running and that nobody executes is a finding, and its cause says so too."""
    conversation = uuid4().hex
    async with connect(faulty.redis_url) as redis:
        key = f"{{agent-stream:{conversation}}}"
        now = await Conversations(Commands(redis)).now()
        state = ["agent", "Faulty", "status", "running", "attempt", "1", "next", "0", "start", "0-0"]
        state += ["created", str(now - 60_000), "lease", str(now - 30_000)]
        await redis.hset(f"{key}:run:r", items=state)
        await redis.zadd(f"{key}:runs", {"r": now})
        await asyncio.gather(*(redis.expire(name, 60) for name in (f"{key}:run:r", f"{key}:runs")))
        told, examined = await told_of(redis, conversation)
    assert "Nobody executes it: its lease ended 30.0 s ago" in told
    assert [finding.code for finding in examined.findings] == ["no_producer"]
