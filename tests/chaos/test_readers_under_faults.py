"""Readers that are cut at random while something breaks: what they end up with is the durable answer."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from soak.counts import Counts
from soak.reader import Habits, Reader
from tests.service import Service, connect_http, running_service, start_run

#: Bounds a whole test, in seconds; one takes about ten.
BOUND: Final = 50.0
CONVERSATIONS: Final = 8
READERS: Final = 3
#: A connection of a reader is cut after at most so many bytes.
CUT_AFTER: Final = 3_000
#: Fast enough for a short test, slow enough for the fault to meet runs in progress.
PACE: Final = "120"

Fault = Callable[[Redis], Awaitable[None]]


async def nothing(_redis: Redis) -> None:
    """The readers alone are cut."""


async def flush(redis: Redis) -> None:
    """Redis forgets everything."""
    await redis.flushall()


async def freeze(redis: Redis) -> None:
    """Redis hangs for longer than a reconnect takes."""
    pid = int((await redis.info("server"))["process_id"])
    os.kill(pid, signal.SIGSTOP)
    # The time that it hangs is the fault itself, nothing that is waited for.
    await asyncio.sleep(2)
    os.kill(pid, signal.SIGCONT)


async def all_are_under_way(redis: Redis) -> bool:
    """Whether each conversation has a good part of an answer."""
    streams = [key async for key in redis.scan_iter(match="agent-stream:*")]
    lengths = [await redis.xlen(key) for key in streams]
    return len([length for length in lengths if length > 50]) >= CONVERSATIONS


async def one_conversation(http: httpx.AsyncClient, number: int, runs: int) -> None:
    """Some runs at once in one conversation, each with readers of its own."""
    started_runs = [await start_run(http, f"Plan a {number % 3 + 1}-day trip to Rome")]
    conversation = str(started_runs[0]["conversation_id"])
    for _ in range(runs - 1):
        more = await start_run(http, "Plan a 2-day trip to Paris", conversation_id=conversation)
        started_runs.append(more)
    for started in await asyncio.gather(*(_read_run(http, run) for run in started_runs)):
        status = await http.get(
            f"/api/agents/TravelPlanner/run/{conversation}", params={"run": started["correlation_id"]}
        )
        assert status.json()["status"] == "Completed"
        assert started["texts"] == {status.json()["response"]}


async def _read_run(http: httpx.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    counts, habits = Counts(), Habits(cut_after=CUT_AFTER)
    readers = (Reader(http, run, habits, random.Random(), counts) for _ in range(READERS))
    readings = await asyncio.gather(*(reader.read() for reader in readers))
    assert not counts.details
    assert {reading.end for reading in readings} == {"done"}
    return {**run, "texts": {reading.text for reading in readings}}


@pytest.fixture(scope="module")
def busy_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose runs take some seconds."""
    with running_service(
        tmp_path_factory.mktemp("chaos") / "data", DEMO_MODEL_WORDS_PER_SECOND=PACE
    ) as running:
        yield running


@pytest.mark.parametrize(
    # A run that only waits for its turn is known to Redis alone, so a flush is met by running ones.
    ("fault", "runs"),
    [(nothing, 2), (flush, 1), (freeze, 2)],
)
async def test_every_reader_ends_up_with_the_answer(busy_service: Service, fault: Fault, runs: int) -> None:
    """Whatever is cut or breaks in mid-run, each reader gets each event once, and in the end the answer."""
    async with (
        asyncio.timeout(BOUND),
        connect_http(busy_service) as http,
        Redis.from_url(busy_service.redis_url) as redis,
        asyncio.TaskGroup() as group,
    ):
        await redis.flushall()
        for number in range(CONVERSATIONS):
            group.create_task(one_conversation(http, number, runs))
        while not await all_are_under_way(redis):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0)
        await fault(redis)
