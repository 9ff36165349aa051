"""Several processes that serve on one port: WORKERS."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.service import (
    Service,
    connect_http,
    eventually,
    failed_start,
    open_events,
    read_events,
    running_service,
    start_run,
    text_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux-only: reads /proc")

#: Readers, so many that each of three processes has some: of 24, one in 16,000 times not.
READERS = 24


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Three processes; an answer takes some seconds."""
    with running_service(tmp_path / "data", WORKERS="3", DEMO_MODEL_WORDS_PER_SECOND="100") as running:
        yield running


def workers(service: Service) -> list[int]:
    """The processes beside the one that executes agents."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    names = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, name in names.items() if b"standalone" in name]


def alive(pids: list[int]) -> list[int]:
    """Those that have not ended."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def connections(pid: int) -> int:
    """How many sockets a process has."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(link.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


async def test_all_of_them_serve(service: Service) -> None:
    """Runs that any of them accepts are executed, streamed and told of by all of them."""
    idle = {pid: connections(pid) for pid in workers(service)}
    assert len(idle) == 2
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(connect_http(service))
        run = await start_run(http, "Plan a 1-day trip to Rome")
        readers = []
        for _ in range(READERS):
            # A connection of its own, which may come to another process.
            client = await stack.enter_async_context(connect_http(service))
            readers.append(asyncio.create_task(read_events(client, run["conversation_id"])))
        await eventually(
            lambda: _all_busy(service, idle), "each of the processes has taken some of the connections"
        )
        read = [[(event.id, event.event, event.data) for event in await reader] for reader in readers]
        assert read == [read[0]] * READERS
        for _ in range(READERS):
            client = await stack.enter_async_context(connect_http(service))
            report = (await client.get(run["links"]["status"])).json()
            assert (report["status"], report["response"]) == ("Completed", "".join(_texts(read[0])))
            assert (await client.get("/api/health")).json()["task_hub"] == "ok"


async def _all_busy(service: Service, idle: dict[int, int]) -> bool:
    return all(connections(pid) > idle[pid] for pid in workers(service))


def _texts(events: list[tuple[str, str, str]]) -> list[str]:
    return [data for _, event, data in events if event == "message"]


async def test_runs_are_stopped_by_whoever_is_asked(service: Service) -> None:
    """A cancel reaches a run, whichever process takes it."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect_http(service)) for _ in range(8)]
        runs = [await start_run(client, "Plan a 9-day trip to Rome") for client in clients]
        for client, run in zip(reversed(clients), runs, strict=True):
            assert (await client.delete(run["links"]["status"])).status_code in (200, 202)
        for client, run in zip(clients, runs, strict=True):
            events = await read_events(client, run["conversation_id"])
            assert [event.event for event in events[-2:]] == ["cancelled", "done"]


async def test_one_that_is_killed_is_started_again(service: Service) -> None:
    """Readers of a process that dies come back and lose nothing, and another takes its place."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(connect_http(service))
        run = await start_run(http, "Plan a 2-day trip to Rome")
        conversation = run["conversation_id"]
        streams = []
        cut = 0
        for _ in range(READERS):
            client = await stack.enter_async_context(connect_http(service))
            stream = await stack.enter_async_context(open_events(client, conversation))
            streams.append((stream, [await stream.next()]))
        before = workers(service)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        # Its connections are all new.
        http = await stack.enter_async_context(connect_http(service))
        texts = []
        for stream, events in streams:
            # Cut in the middle, one way or another, if its process was killed.
            with suppress(httpx.TransportError):
                events.extend(await stream.rest())
            if events[-1].event != "done":
                last = {"last-event-id": events[-1].id}
                events.extend(await read_events(http, conversation, headers=last))
                cut += 1
            texts.append(text_of(events))
        whole = text_of(await read_events(http, conversation))
        assert texts == [whole] * READERS
        assert cut > 0

        async def are_back() -> bool:
            return len(workers(service)) == 2 and not set(workers(service)) & set(before)

        await eventually(are_back, "others have taken their place")
        assert "worker process ended, another is started: signal=SIGKILL" in service.log


async def test_they_end_with_the_one_that_started_them(service: Service) -> None:
    """Whether it stops or is killed, no process is left behind."""
    pids = workers(service)
    service.process.kill()

    async def are_gone() -> bool:
        return not alive(pids)

    await eventually(are_gone, "all processes have ended")


async def test_a_stop_is_clean(service: Service) -> None:
    """On SIGTERM all of them let their readers go, and the service ends well."""
    pids = workers(service)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(connect_http(service))
        run = await start_run(http, "Plan a 9-day trip to Rome")
        streams = []
        for _ in range(READERS):
            client = await stack.enter_async_context(connect_http(service))
            streams.append(await stack.enter_async_context(open_events(client, run["conversation_id"])))
        for stream in streams:
            await stream.next()
        service.process.terminate()
        for stream in streams:
            await stream.rest()
            assert bytes(stream.received).endswith(b"\n\nretry: 1000\n\n")
        assert await asyncio.to_thread(service.wait) == 0
    assert alive(pids) == []
    assert "Traceback" not in service.log
    assert "ERROR" not in service.log


@pytest.mark.parametrize("value", ["0", "-1", "two", "1000"])
def test_a_number_that_makes_no_sense(tmp_path: Path, value: str) -> None:
    """WORKERS has to be a number of processes; the message names it and the value."""
    failed = failed_start(tmp_path / "data", WORKERS=value)
    assert failed.returncode == 2
    assert "WORKERS" in failed.stderr
    assert repr(value) in failed.stderr


def test_a_trail_in_memory_is_refused(tmp_path: Path) -> None:
    """What processes can't share is told at the start."""
    failed = failed_start(tmp_path / "data", WORKERS="2", AUDIT_TRAIL_STORE="memory")
    assert (failed.returncode, "AUDIT_TRAIL_STORE" in failed.stderr) == (2, True)
