"""A service that the system allows few open files: what it can't take it refuses with a reason."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from tests.service import PATIENCE, Service, connect_http, running_service, stream_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows-only: it has no such limit")

PROGRAM = "tests.integration.few_files"
CONVERSATION = "endless"
#: More than the service of these tests has open without any reader.
FEW = 128


async def open_stream(service: Service, stack: AsyncExitStack) -> str:
    """Begin to read; how the answer begins, the rest is left unread until the stack is closed."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*service.address)
        stack.callback(writer.close)
        asked = f"GET {stream_path(CONVERSATION)} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n"
        writer.write(asked.encode())
        try:
            status = (await reader.readline()).decode().strip()
            if status.startswith("HTTP/1.1 200"):
                return status
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            return f"{status} {json.loads(await reader.readexactly(length))['code']}"
        except (ConnectionError, asyncio.IncompleteReadError):
            return "closed without a word"


async def answers_to(service: Service, readers: int) -> Counter[str]:
    """What so many readers at once are answered. At the end all are connected, and health is asked for."""
    async with RedisStreamResponseHandler(connect(service.redis_url)) as writer:
        await writer.write_chunk(CONVERSATION, "so far", 0)
    async with AsyncExitStack() as stack:
        answers = Counter([await open_stream(service, stack) for _ in range(readers)])
        async with connect_http(service) as http:
            health = await http.get("/api/health")
            assert health.json()["redis"] == "ok", health.text
    return answers


async def test_what_may_be_raised_is_raised(tmp_path: Path) -> None:
    """A low limit that a program may raise, as shells set it, is no limit of the service."""
    with running_service(tmp_path / "data", program=PROGRAM, OPEN_FILES=f"{FEW},4096") as service:
        assert await answers_to(service, 2 * FEW) == {"HTTP/1.1 200 OK": 2 * FEW}


async def test_what_may_not_be_raised_is_a_limit_with_a_reason(tmp_path: Path) -> None:
    """Readers for whom there is no room are told so, and health checks go on; the log says what to do."""
    with running_service(tmp_path / "data", program=PROGRAM, OPEN_FILES=f"{FEW},{FEW}") as service:
        answers = await answers_to(service, 100)
        assert answers == {
            "HTTP/1.1 200 OK": FEW // 2,
            "HTTP/1.1 503 Service Unavailable too_many_streams": 100 - FEW // 2,
        }
        assert f"{FEW // 2} streams may be open and not 20000: raise the hard limit" in service.log


async def test_a_limit_of_our_own_needs_no_more(tmp_path: Path) -> None:
    """Where fewer streams may be open anyway, nothing is cut and nothing is said."""
    settings = {"OPEN_FILES": f"{FEW},{FEW}", "MAX_STREAMS": "20"}
    with running_service(tmp_path / "data", program=PROGRAM, **settings) as service:
        assert (await answers_to(service, 21))["HTTP/1.1 200 OK"] == 20
        assert "open files" not in service.log
