"""What requests leave: no garbage in cycles, since looking for it holds up all readers, and no pages."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from hosting.asgi import create_app
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.http import endpoints as endpoints_module
from streaming.http.endpoints import Endpoints
from streaming.http.limits import Load
from streaming.settings import Settings
from streaming.writing.leases import LeaseKeeper
from tests.integration.wire import served
from tests.redis_server import RedisServer
from tests.service import PATIENCE, eventually

#: Enough to stand out from what the loop and the test leave.
REQUESTS = 20
CHUNKS = 800
LAST = "so far"
#: What was left of the last page of them was 500 KB.
WAITING_BYTES = 200_000
ROOMS = ("hosting.", "streaming.", "uvicorn.", "starlette.", "uvloop.")


@pytest.fixture
def uncollected() -> Iterator[list[str]]:
    """Filled at the end of a test, by ``find``: types of objects that only the collector could free."""
    gc.collect()
    gc.disable()
    yield []
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def find(uncollected: list[str]) -> None:
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    names = [f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.garbage]
    uncollected += [name for name in names if name.startswith(ROOMS)]


@asynccontextmanager
async def serving(server: RedisServer, load: Load) -> AsyncIterator[tuple[str, int]]:
    hub: Any = None
    leases = LeaseKeeper(lambda: connect(server.url), timedelta(minutes=1))
    async with RedisStreamResponseHandler(connect(server.url)) as handler:
        await handler.write_chunk("ended", "all of it", 0)
        await handler.write_completion("ended", 1)
        await handler.write_chunk("open", "a part of it", 0)
        for number in range(CHUNKS):
            await handler.write_chunk(
                "long", f"{number} {LAST if number == CHUNKS - 1 else 'x' * 200}", number
            )
        endpoints = Endpoints(
            settings=Settings(),
            agents={},
            runs=handler.runs,
            reader=handler.reader,
            hub=hub,
            leases=leases,
            load=load,
        )
        async with served(create_app(endpoints)) as address:
            yield address
    await asyncio.to_thread(leases.close)


async def ask(address: tuple[str, int], request: bytes, read_until: str) -> asyncio.StreamWriter:
    """Send a request, and read up to a text. Nothing is kept but the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    end = b""
    async with asyncio.timeout(PATIENCE):
        while read_until.encode() not in end:
            end = end[-100:] + await reader.read(4_096)
    return writer


@pytest.mark.parametrize(
    ("path", "read_until"),
    [
        ("/api/agent/stream/ended", "[DONE]\n\n\r\n0\r\n\r\n"),
        ("/api/agent/stream/open", "a part of it"),
        ("/api/health/live", "live"),
        ("/nothing/here", "Not Found"),
    ],
    ids=["a stream to its end", "a reader that leaves", "a short answer", "no such route"],
)
async def test_requests_leave_nothing_to_the_collector(
    server: RedisServer, uncollected: list[str], path: str, read_until: str
) -> None:
    """Whatever a request has made goes with it, at once."""
    load = Load()
    async with serving(server, load) as address:
        for _ in range(REQUESTS):
            head = b"GET %s HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n" % path.encode()
            writer = await ask(address, head, read_until)
            writer.close()
            await writer.wait_closed()

        async def all_have_left() -> bool:
            return load.streams == 0

        await eventually(all_have_left, "no stream is open")
        # The server's side of the last connections.
        await asyncio.sleep(0)
        find(uncollected)
    assert len(uncollected) < REQUESTS, sorted(set(uncollected))


async def test_endpoints_leave_nothing_to_the_collector(uncollected: list[str]) -> None:
    """On Azure Functions each request has endpoints of its own, which go with it, as does their client."""
    nothing: Any = None
    for _ in range(REQUESTS):
        Endpoints(settings=Settings(), agents={}, runs=nothing, reader=nothing, hub=nothing, leases=nothing)
    find(uncollected)
    assert not uncollected


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
async def test_who_waits_holds_nothing_of_what_was_given(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    """A reader that has got all there is takes as little memory as if it had got nothing."""
    # It would take the place of the last page.
    monkeypatch.setattr(endpoints_module, "HEARTBEAT", timedelta(hours=1))
    head = b"host: x\r\naccept: %s\r\n\r\n" % accept.encode()
    async with serving(server, Load()) as address:
        # What the first request makes stays.
        first = await ask(address, b"GET /api/agent/stream/open HTTP/1.1\r\n" + head, "a part of it")
        tracemalloc.start()
        second = await ask(address, b"GET /api/agent/stream/long HTTP/1.1\r\n" + head, LAST)

        async def little_is_held() -> bool:
            return tracemalloc.get_traced_memory()[0] < WAITING_BYTES

        try:
            await eventually(little_is_held, "its memory has been given back")
        finally:
            tracemalloc.stop()
            for writer in (first, second):
                writer.close()
                await writer.wait_closed()
