"""Readers that are cut at random while something breaks: what they end up with is the durable answer.

They are raw ones, the Python client and the JavaScript client.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from soak.client_readers import WAYS, Clients, running_clients
from soak.counts import Counts
from soak.reader import Habits, Reader, Reading, RunReader
from tests.service import Service, connect_http, free_port, running_service, start_run

#: Bounds a whole test, in seconds; one takes about ten.
BOUND: Final = 50.0
CONVERSATIONS: Final = 8
#: Of each run, raw ones. Each client reads it in both its ways beside them.
READERS: Final = 2
#: A connection of a reader is cut after at most so many bytes.
CUT_AFTER: Final = 3_000
#: The same of the clients; they come back less fast.
CLIENTS_CUT_AFTER: Final = (3_000, 20_000)
#: Fast enough for a short test, slow enough for the fault to meet runs in progress.
PACE: Final = "120"

Fault = Callable[[Redis], Awaitable[None]]
Run = dict[str, Any]


async def cut(redis: Redis) -> None:
    """Every connection to Redis is cut."""
    for kind in ("normal", "pubsub"):
        await redis.client_kill_filter(_type=kind, skipme=True)


async def flush(redis: Redis) -> None:
    """Redis forgets everything."""
    await redis.flushall()


async def freeze(redis: Redis) -> None:
    """Redis hangs for longer than a reconnect takes."""
    pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    # The time that it hangs is the fault itself, nothing that is waited for.
    await asyncio.sleep(2)
    os.kill(pid, signal.SIGCONT)


async def kill(redis: Redis) -> None:
    """Redis ends without a warning; the service starts it again."""
    os.kill(await pid_of(redis), signal.SIGKILL)


async def pid_of(redis: Redis) -> int:
    """The process that serves."""
    return int((await redis.info("server"))["process_id"])


async def until_all_are_under_way(redis: Redis) -> None:
    """Wait until each conversation has a good part of an answer."""
    while True:
        streams = [key async for key in redis.scan_iter(match="agent-stream:*")]
        lengths = [await redis.xlen(key) for key in streams]
        if len([length for length in lengths if length > 50]) >= CONVERSATIONS:
            return


@dataclass(frozen=True, slots=True)
class Audience:
    """Reads runs in every way."""

    http: httpx.AsyncClient
    clients: Clients

    async def read(self, run: Run) -> tuple[Run, list[Reading]]:
        """Read a run to its end; its status then, and what each reader has."""
        counts, habits = Counts(), Habits(cut_after=CUT_AFTER)
        readers: list[RunReader] = [
            Reader(self.http, run, habits, random.Random(), counts) for _ in range(READERS)
        ]
        readers += self.clients.readers(run, WAYS, counts)
        readings = await asyncio.gather(*(reader.read() for reader in readers))
        assert not counts.details
        return (await self.http.get(run["links"]["status"])).json(), readings

    async def converse(self, number: int, runs: int) -> None:
        """Some runs at once in one conversation: each of their readers gets the answer."""
        started = [await start_run(self.http, f"Plan a {number % 3 + 1}-day trip to Rome")]
        conversation = str(started[0]["conversation_id"])
        for _ in range(runs - 1):
            message = "Plan a 2-day trip to Paris"
            started.append(await start_run(self.http, message, conversation_id=conversation))
        for status, readings in await asyncio.gather(*map(self.read, started)):
            assert status["status"] == "Completed"
            assert {reading.end for reading in readings} == {"done"}, readings
            assert {reading.text for reading in readings} == {status["response"]}, readings


@asynccontextmanager
async def audience_of(service: Service) -> AsyncIterator[Audience]:
    """Readers of a service, for a bounded time; the test counts as skipped without Node."""
    async with (
        asyncio.timeout(BOUND),
        connect_http(service) as http,
        running_clients(service.address, random.Random(), cut_after=CLIENTS_CUT_AFTER, haste=20) as clients,
    ):
        yield Audience(http, clients)
    if clients.node is None:
        pytest.skip("all but the JavaScript client got the answer: node is not installed")


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
    [(cut, 2), (flush, 1), (freeze, 2), (kill, 1)],
)
async def test_every_reader_ends_up_with_the_answer(busy_service: Service, fault: Fault, runs: int) -> None:
    """Whatever is cut or breaks in mid-run, each reader gets each event once, and in the end the answer."""
    async with audience_of(busy_service) as audience, Redis.from_url(busy_service.redis_url) as redis:
        await redis.flushall()
        async with asyncio.TaskGroup() as group:
            for number in range(CONVERSATIONS):
                group.create_task(audience.converse(number, runs))
            await until_all_are_under_way(redis)
            await fault(redis)


async def test_every_reader_outlives_the_service(tmp_path: Path) -> None:
    """The service is killed in mid-run and comes back: each reader has what was said, and why it ended."""
    settings = {"PORT": str(free_port()), "DEMO_MODEL_WORDS_PER_SECOND": PACE}
    with running_service(tmp_path / "data", **settings) as service:
        async with audience_of(service) as audience, Redis.from_url(service.redis_url) as redis:
            runs = [await start_run(audience.http) for _ in range(CONVERSATIONS)]
            readings = [asyncio.create_task(audience.read(run)) for run in runs]
            await until_all_are_under_way(redis)
            await asyncio.to_thread(service.stop, signal.SIGKILL)
            with running_service(tmp_path / "data", **settings):
                ends = await asyncio.gather(*readings)
    for status, given in ends:
        assert (status["status"], status["code"]) == ("Failed", "interrupted")
        assert {reading.end for reading in given} == {"interrupted"}, given
        assert {reading.text for reading in given} == {status["response"]} != {""}, given
