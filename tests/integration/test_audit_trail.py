"""Trails of real service processes: killed, several on one Redis, without it; and their page in a browser."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.redis_server import RedisServer
from tests.service import PATIENCE, SLOW, Service, connect_http, eventually, running_service, start_run

RUN: Final = "/api/agents/CallbackAgent/run"
JOKE: Final = "Tell me a short joke"
#: A message that would do harm, were it ever taken for markup.
HOSTILE: Final = "<img src=x onerror=\"document.title='harmed'\"><script>document.title='harmed'</script>"


def path(thread: str) -> str:
    return f"/api/agents/CallbackAgent/callbacks/{thread}"


async def events_of(http: httpx.AsyncClient, thread: str) -> list[dict[str, Any]]:
    response = await http.get(path(thread))
    assert response.status_code == 200, response.text
    return list(response.json())


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """Somebody else's Redis."""
    server = RedisServer(tmp_path / "redis")
    await server.start()
    yield server
    server.kill()


async def test_a_killed_service_leaves_its_trail(tmp_path: Path) -> None:
    """What a run had said is there after its process was killed, and an error event says how it ended."""
    data_dir = tmp_path / "data"
    with running_service(data_dir, DEMO_MODEL_WORDS_PER_SECOND=SLOW) as service:
        async with connect_http(service) as http:
            run = await start_run(http, JOKE, agent="CallbackAgent")
            thread = run["conversation_id"]

            async def has_text() -> bool:
                return any(event.get("update_kind") == "text" for event in await events_of(http, thread))

            await eventually(has_text, "the run says something")
            before = await events_of(http, thread)
        service.stop(signal.SIGKILL)
    with running_service(data_dir) as service:
        async with connect_http(service) as http:
            after = await events_of(http, thread)
            assert after[: len(before)] == before
            assert (after[-1]["event_type"], after[-1]["code"]) == ("error", "interrupted")
            assert after[-1]["request_message"] == JOKE
            assert await events_of(http, thread) == after


async def test_processes_share_trails(tmp_path: Path, redis_server: RedisServer) -> None:
    """A trail that one process writes is read, to its end at once, and deleted by another."""
    settings = {"REDIS_CONNECTION_STRING": redis_server.url}
    with (
        running_service(tmp_path / "one", **settings) as one,
        running_service(tmp_path / "two", **settings) as two,
    ):
        async with connect_http(one) as writer, connect_http(two) as reader:
            answer = (await writer.post(f"{RUN}?thread_id=shared", content=JOKE)).text
            events = await events_of(reader, "shared")
            assert events[-1]["response_text"] == answer
            assert (await reader.delete(path("shared"))).status_code == 204
            assert await events_of(writer, "shared") == []


async def test_redis_away(tmp_path: Path, redis_server: RedisServer) -> None:
    """Without Redis, reading and deleting a trail is a 503 that says to come again; the page is there."""
    with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=redis_server.url) as service:
        async with connect_http(service) as http:
            await http.post(f"{RUN}?thread_id=away", content=JOKE)
            redis_server.kill()
            for method in ("GET", "DELETE"):
                response = await http.request(method, path("away"))
                assert (response.status_code, response.json()["code"]) == (503, "stream_unavailable")
                assert response.headers["retry-after"] == "2"
            assert (await http.get(f"{path('away')}/timeline")).status_code == 200


async def test_the_timeline_in_a_browser(service: Service, http: httpx.AsyncClient) -> None:
    """The page shows the run, its joined text and its end; a hostile message stays text."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    run = await http.post(f"{RUN}?thread_id=hostile", content=HOSTILE)
    address = f"{service.url}{path('hostile')}/timeline"
    process = await asyncio.create_subprocess_exec(
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"),
        *("--dump-dom", address),
        stdout=PIPE,
        stderr=DEVNULL,
    )
    async with asyncio.timeout(2 * PATIENCE):
        page = (await process.communicate())[0].decode()
    body = page.partition("<body>")[2].partition("<script>")[0]
    assert "&lt;img src=x onerror=" in body
    assert "<img" not in body
    assert "<title>CallbackAgent: callback timeline</title>" in page
    assert "Completed" in body
    shown = re.findall(r'<p class="said">([^<]+)</p>', body)
    assert run.text in [
        text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">") for text in shown
    ]
    assert "As streamed above." in body
