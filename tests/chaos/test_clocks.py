"""Clocks that disagree or step back: leases go by the clock of Redis, order by its ids."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hosting.embedded.redis_server import find_server
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import RunStatus
from tests.chaos.faulty_runs import FAULTY, Step, shown, start, status_of
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of
from tests.service import Service, connect_http, eventually, free_port, read_events, running_service

HOUR = 3_600
#: Readers look after their producer so often.
LOOK = timedelta(milliseconds=50)


def faketime_library() -> str:
    """The library that shifts a program's clock."""
    for folder in Path("/usr/lib").glob("*/faketime"):
        return str(folder / "libfaketime.so.1")
    pytest.skip("faketime is not installed")


@pytest.fixture(params=[HOUR, -HOUR], ids=["an hour ahead", "an hour behind"])
def services(
    request: pytest.FixtureRequest, tmp_path: Path, faulty: Service
) -> Iterator[tuple[Service, Service]]:
    """Two services on one Redis, the clock of one of them an hour off."""
    settings = {
        "REDIS_CONNECTION_STRING": faulty.redis_url,
        "LD_PRELOAD": faketime_library(),
        "FAKETIME": f"{request.param:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with running_service(tmp_path / "data", program=FAULTY, **settings) as shifted:
        yield faulty, shifted


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the right time."""
    with running_service(tmp_path_factory.mktemp("clocks") / "data", program=FAULTY) as running:
        yield running


def slowly(word: str, times: int) -> list[Step]:
    """Steps that write words with pauses between them."""
    return [step for number in range(times) for step in ({"say": f"{word}{number} "}, {"stall": 0.02})]


async def test_two_processes_an_hour_apart(services: tuple[Service, Service], tmp_path: Path) -> None:
    """Each service reads the runs of the other, and takes none of them for dead, whatever its clock says."""
    async with connect_http(services[0]) as right, connect_http(services[1]) as wrong:
        for executing, reading in ((right, wrong), (wrong, right)):
            go_on = tmp_path / f"go-on-{executing.base_url.port}"
            run = await start(executing, *slowly("w", 10), {"until": str(go_on)}, {"say": "end"})
            assert (await status_of(reading, run))["status"] in ("Pending", "Running")
            go_on.touch()
            events = await read_events(reading, run["conversation_id"])
            assert shown(events) == "".join(f"w{number} " for number in range(10)) + "end"
            assert events[-1].event == "done"
            second = await start(reading, {"say": "next"}, conversation_id=run["conversation_id"])
            assert shown(await read_events(executing, run["conversation_id"])) == "next"
            assert (await status_of(executing, second))["status"] == "Completed"


@dataclass(frozen=True)
class Clock:
    """A Redis whose clock is what a file says."""

    file: Path
    port: int

    def set(self, seconds: int) -> None:
        """Let it go so far ahead of the right time; below 0: behind it."""
        self.file.write_text(f"{seconds:+d}s\n")


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    """Such a Redis, at first with the right time."""
    binary = find_server()
    assert binary is not None
    clock = Clock(tmp_path / "shift", free_port())
    clock.set(0)
    environment = {
        **os.environ,
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [str(binary.path), "--port", str(clock.port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path)
    yield clock
    server.kill()
    server.wait()


@pytest.fixture
async def redis(clock: Clock) -> AsyncIterator[Redis]:
    """A client of it."""
    client = connect(f"redis://127.0.0.1:{clock.port}/0")

    async def answers() -> bool:
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False

    await eventually(answers, "Redis answers")
    yield client
    await client.aclose()


async def step_back(clock: Clock, redis: Redis) -> None:
    """Set the clock of Redis an hour back."""
    before = int((await redis.time())[0])
    clock.set(-HOUR)

    async def is_back() -> bool:
        return int((await redis.time())[0]) < before - HOUR / 2

    await eventually(is_back, "the clock of Redis has stepped back")


async def test_the_clock_of_redis_steps_back_in_mid_run(clock: Clock, redis: Redis) -> None:
    """Ids go on growing, so every cursor stays good; the lease is renewed; later runs come later."""
    handler = RedisStreamResponseHandler(redis)
    attempt = await begin(handler, "c", "r1")
    await handler.runs.append(attempt, 0, [text("one "), text("two ")])
    reading = asyncio.create_task(read_all(handler, "c"))
    await step_back(clock, redis)
    await handler.runs.append(attempt, 2, [text("three")])
    renewed = await handler.runs.renew("c", "r1", 1)
    assert renewed is not None
    assert (renewed.status, renewed.attempt) == (RunStatus.RUNNING, 1)
    await handler.runs.append(attempt, 3, [COMPLETED])
    chunks = await reading
    assert text_of(chunks) == "one two three"
    ids = [chunk.id for chunk in chunks]
    assert ids == sorted(ids)
    for place, chunk in enumerate(chunks[:-1]):
        assert await read_all(handler, "c", chunk.entry_id) == chunks[place + 1 :]
    await handler.runs.register("c", "r2", "Agent")
    latest = await handler.runs.latest_run("c")
    assert latest is not None
    assert latest.run == "r2"
    await handler.reader.close()


async def test_a_producer_that_died_before_the_clock_stepped_back(
    clock: Clock, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that seems good for another hour is no reason to wait for an hour."""
    monkeypatch.setattr("streaming.reading.liveness.LIVENESS_INTERVAL", LOOK)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", LOOK)
    handler = RedisStreamResponseHandler(redis)
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("half")])
    await step_back(clock, redis)
    chunks = await read_all(handler, "c")
    assert chunks[-1].status is RunStatus.INTERRUPTED
    await handler.reader.close()
