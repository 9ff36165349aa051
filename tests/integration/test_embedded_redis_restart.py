"""An embedded Redis that ends by itself is started again, and nobody notices but the log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hosting.embedded import redis_process
from hosting.embedded.redis_server import EmbeddedRedis
from tests.integration.test_embedded_redis import guard_of, is_running, wait_until_ended
from tests.service import (
    connect_http,
    eventually,
    open_events,
    read_events,
    read_plain,
    running_service,
    start_run,
    text_of,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows-only stand-in: no server process")

#: Words per second at which the demo's answer lasts for some seconds.
STEADY = "150"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A running server with an entry in its stream."""
    async with EmbeddedRedis(tmp_path / "data") as running:
        async with Redis.from_url(running.url, protocol=2) as redis:
            await redis.xadd("agent-stream:kept", {"text": "first"})
        yield running


async def pid_of(url: str) -> int:
    """The process that serves, as soon as one does."""
    found = 0
    async with Redis.from_url(url, protocol=2) as redis:

        async def answers() -> bool:
            nonlocal found
            try:
                found = int((await redis.info("server"))["process_id"])
            except RedisError:
                return False
            return True

        await eventually(answers, "Redis answers")
    return found


async def killed(url: str) -> int:
    """Kill the server; the process of the next one."""
    pid = await pid_of(url)
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until_ended, pid)
    return await pid_of(url)


async def test_killed_server_comes_back(server: EmbeddedRedis, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is killed comes back by itself, on its port and with its data, and the log says so."""
    url = server.url
    for _ in range(2):
        await killed(url)
        async with Redis.from_url(url, protocol=2) as redis:
            assert await redis.xlen("agent-stream:kept") == 1
    assert server.url == url
    assert caplog.text.count("ended by itself") == 2


async def test_stopping_a_server_that_came_back(server: EmbeddedRedis) -> None:
    """Stopping ends the server that came back and its guard, and starts no other."""
    pid = await killed(server.url)
    guard = guard_of(pid)
    await server.stop()
    assert not is_running(pid)
    assert not is_running(guard)
    assert server._server is None


async def test_killed_guard_comes_back(server: EmbeddedRedis) -> None:
    """A server that lost its guard is replaced by a guarded one, so that none can outlive its service."""
    pid = await pid_of(server.url)
    os.kill(guard_of(pid), signal.SIGKILL)
    await asyncio.to_thread(wait_until_ended, pid)
    successor = await pid_of(server.url)
    await server.stop()
    assert not is_running(successor)


async def test_server_that_keeps_ending_is_given_up(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that ends again and again is given up after a few restarts, with an error in the log."""
    monkeypatch.setattr(redis_process, "_RESTART_PAUSES", (timedelta(0),))
    last = await killed(server.url)
    os.kill(last, signal.SIGKILL)

    async def is_given_up() -> bool:
        return "given up" in caplog.text

    await eventually(is_given_up, "the server is given up")
    assert caplog.text.count("ended by itself") == 1


async def test_run_goes_on_over_a_killed_redis(tmp_path: Path) -> None:
    """A run in progress and its reader outlast deaths of the embedded Redis: every chunk once, in order."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND=STEADY) as service:
        async with connect_http(service) as http:
            run = await start_run(http)
            conversation = run["conversation_id"]
            async with open_events(http, conversation) as stream:
                seen = [await stream.next() for _ in range(5)]
                for _ in range(2):
                    await killed(service.redis_url)
                    seen.append(await stream.next())
                seen += await stream.rest()
            assert seen[-1].event == "done"
            assert {event.event for event in seen} == {"message", "done"}
            report = (await http.get(run["links"]["status"])).json()
            assert (report["status"], report["attempt"]) == ("Completed", 1)
            assert text_of(seen) == report["response"] == await read_plain(http, conversation)
            assert await read_events(http, conversation) == seen
        assert service.log.count("ended by itself") == 2
        assert "Traceback" not in service.log
