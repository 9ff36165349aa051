"""Requests that no honest client sends: endless heads, odd bytes, wrong lengths, requests that never end."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from hosting import http_protocol, starlette_requests
from hosting import listener as listener_module
from hosting.asgi import create_app
from hosting.listener import listen
from streaming.http.endpoints import Endpoints
from streaming.settings import Settings
from tests.integration.wire import LIMIT, answers_of, exchange, served
from tests.service import PATIENCE, Service

HEALTH: Final = b"GET /api/health HTTP/1.1\r\nhost: x\r\n"
RUN: Final = b"POST /api/agents/TravelPlanner/run"
CHUNKED: Final = RUN + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM: Final = b"GET /api/agent/stream/"
#: More than is ever read at a time, and far more than the limit.
ENDLESS: Final = 64 * 1_048_576


# ── Heads ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "head",
    [
        HEALTH + b"x-long: " + b"a" * LIMIT + b"\r\n\r\n",
        HEALTH + b"x: y\r\n" * (LIMIT // 32) + b"\r\n",
        b"GET /api/health?" + b"a" * LIMIT + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["one long header", "many short headers", "a long request line"],
)
def test_a_head_over_the_limit(service: Service, head: bytes) -> None:
    """A request line and headers over MAX_HEADER_BYTES are refused with 431 and the usual error."""
    received = exchange(service.address, head, ends=False)
    assert answers_of(received) == [431]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "headers_too_large"


def test_heads_within_the_limit(service: Service) -> None:
    """Headers that fit are taken, on each of many requests over one connection."""
    head = HEALTH + b"x-long: " + b"a" * (LIMIT - 1_024) + b"\r\n\r\n"
    closing = HEALTH + b"connection: close\r\n\r\n"
    assert answers_of(exchange(service.address, head * 5 + closing, ends=False)) == [200] * 6


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /api/health?",
        HEALTH + b"x-long: ",
        HEALTH + b"x-lo",
        CHUNKED + b"1\r\nx\r\n0\r\nx-trailer: ",
        CHUNKED + b"1;x=",
    ],
    ids=["request line", "header", "header name", "trailer", "chunk extension"],
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell: Linux-only")
def test_what_never_ends_is_not_collected(service: Service, beginning: bytes) -> None:
    """Whatever part of a request goes on for ever, the service closes early and keeps nothing of it."""
    before = service.memory
    received = exchange(service.address, beginning + b"a" * ENDLESS, ends=False)
    # The answer may be lost: closing a connection on which more is coming resets it.
    assert set(answers_of(received)) <= {400, 431}
    assert service.memory - before < ENDLESS / 4
    assert httpx.get(f"{service.url}/api/health", trust_env=False).status_code == 200


@pytest.mark.parametrize("sent", [b"", HEALTH, HEALTH + b"\r\n" + HEALTH], ids=["nothing", "half", "second"])
async def test_a_head_that_never_ends_in_time(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Who connects and does not send a whole request in time is let go of."""
    monkeypatch.setattr(http_protocol, "HEAD_PATIENCE", timedelta(seconds=0.2))

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with served(app) as address:
        received = await asyncio.to_thread(exchange, address, sent, ends=False)
    assert answers_of(received) == [200] * (sent.count(b"\r\n\r\n"))


async def test_empty_lines_are_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends empty lines after an answer does not keep the connection by that."""
    monkeypatch.setattr(http_protocol, "HEAD_PATIENCE", timedelta(seconds=0.2))

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with served(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEALTH + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\r\n")
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_a_body_that_never_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come in time is answered with 408."""
    monkeypatch.setattr(starlette_requests, "BODY_PATIENCE", timedelta(seconds=0.2))
    # Nothing behind the body is ever reached.
    nothing: Any = None
    endpoints = Endpoints(
        settings=Settings(), agents={}, runs=nothing, reader=nothing, hub=nothing, leases=nothing
    )
    head = b"POST /api/agents/a/run HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhal"
    async with served(create_app(endpoints)) as address:
        received = await asyncio.to_thread(exchange, address, head, ends=False)
    assert answers_of(received) == [408]
    assert b"request_timeout" in received


# ── Odd bytes ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_head", "body", "statuses"),
    [
        (STREAM + b"a%00b HTTP/1.1", b"", {400}),
        (STREAM + b"%2e%2e HTTP/1.1", b"", {400, 404}),
        (STREAM + b"..%2f..%2fhealth HTTP/1.1", b"", {400, 404}),
        (STREAM + b"../../health HTTP/1.1", b"", {404}),
        (STREAM + b"%ff%fe HTTP/1.1", b"", {400}),
        (STREAM + b"\xff\xfe HTTP/1.1", b"", {400}),
        (STREAM + b"a" * 129 + b" HTTP/1.1", b"", {400}),
        (STREAM + b"a" * 20_000 + b" HTTP/1.1", b"", {400}),
        (STREAM + b"{a}:runs HTTP/1.1", b"", {400}),
        (STREAM + b"a?cursor=%00 HTTP/1.1", b"", {400}),
        (STREAM + b"never-was?cursor=%ff&cursor=0 HTTP/1.1", b"", {404}),
        (STREAM + b"a?run=%0d%0aset-cookie:x HTTP/1.1", b"", {400}),
        (STREAM + b"a?follow=%f0%9f%98%80 HTTP/1.1", b"", {400}),
        (STREAM + b"a HTTP/1.1\r\nlast-event-id: \xff\xfe", b"", {400}),
        (STREAM + b"never-was HTTP/1.1\r\naccept: \xff\r\naccept: text/plain", b"", {404}),
        (b"OPTIONS /api/agent/stream/a HTTP/1.1", b"", {405}),
        (b"TRACE /api/agent/stream/a HTTP/1.1", b"", {405}),
        (b"GET http://elsewhere/api/health HTTP/1.1", b"", {200, 404}),
        (b"GET //api/health HTTP/1.1", b"", {404}),
        (b"GET /api/health/ HTTP/1.1", b"", {404}),
        (b"OPTIONS * HTTP/1.1", b"", {400, 404}),
        (b"BREW /api/health HTTP/1.1", b"", {400}),
        (RUN + b" HTTP/1.1\r\ncontent-length: 5", b"\xff\xfe\xfd\xfc\xfb", {400}),
        (RUN + b" HTTP/1.1\r\ncontent-length: 3\r\ncontent-type: application/json", b"[1]", {400}),
        (RUN + b" HTTP/1.1\r\ncontent-length: -1", b"", {400}),
        (RUN + b" HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2", b"ab", {400}),
        (RUN + b" HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked", b"0\r\n\r\n", {400}),
        (RUN + b" HTTP/1.1\r\ntransfer-encoding: chunked", b"zz\r\n", {400}),
        (RUN + b" HTTP/1.1\r\ntransfer-encoding: chunked", b"0\r\n\r\n", {400}),
        (RUN + b" HTTP/1.1\r\ntransfer-encoding: gzip", b"x", {400}),
        (
            RUN + b"?conversation_id=a&conversation_id=b&session_id=a HTTP/1.1\r\ncontent-length: 1",
            b"x",
            {400},
        ),
        (RUN + b" HTTP/1.1\r\nx-ms-thread-id: \xc3\xbc\r\ncontent-length: 1", b"x", {400}),
        (RUN + b" HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade, close", b"", {400}),
    ],
)
def test_odd_requests(service: Service, request_head: bytes, body: bytes, statuses: set[int]) -> None:
    """A request that is not quite one is a refusal that says so: never a fault, and nothing of its inside."""
    separator = b"" if b"connection:" in request_head else b"connection: close\r\n"
    sent = request_head + b"\r\nhost: x\r\n" + separator + b"\r\n" + body
    received = exchange(service.address, sent, ends=False)
    assert set(answers_of(received)) <= statuses, received[:500]
    assert answers_of(received)
    assert b"Traceback" not in received
    assert b"set-cookie" not in received.partition(b"\r\n\r\n")[0].lower()


@pytest.mark.parametrize("path", ["/api/health", "/api/openapi.json", "/api/agent/stream/nobody"])
def test_head_requests(service: Service, path: str) -> None:
    """HEAD answers as GET does, without a body."""
    with httpx.Client(base_url=service.url, trust_env=False, timeout=PATIENCE) as client:
        asked, headed = client.get(path), client.head(path)
    assert headed.status_code == asked.status_code
    assert headed.content == b""


def test_a_body_that_is_cut_short(service: Service) -> None:
    """Who announces more than it sends gets no run: half a message is none."""
    head = RUN + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf a"
    assert answers_of(exchange(service.address, head)) in ([], [400])


# ── Clients that vanish ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no such option: Linux-only"
)
def test_connections_notice_dead_clients() -> None:
    """Connections are probed when silent, and dropped when what was sent stays untaken for two minutes."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            level = socket.IPPROTO_TCP
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle = accepted.getsockopt(level, socket.TCP_KEEPIDLE)
            probes = accepted.getsockopt(level, socket.TCP_KEEPCNT)
            assert idle + probes * accepted.getsockopt(level, socket.TCP_KEEPINTVL) <= 120
            assert accepted.getsockopt(level, socket.TCP_USER_TIMEOUT) == 120_000


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no such option: Linux-only"
)
async def test_a_client_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is there but takes nothing of what it is sent is let go of, and its response ends."""
    monkeypatch.setattr(listener_module, "UNTAKEN_LIMIT", timedelta(seconds=1))
    gone = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        async def send_for_ever() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})

        sending = asyncio.create_task(send_for_ever())
        while (await receive())["type"] != "http.disconnect":
            pass
        sending.cancel()
        gone.set()

    async with served(app) as address:
        with socket.create_connection(address) as connection:
            connection.sendall(HEALTH + b"\r\n")
            async with asyncio.timeout(PATIENCE):
                await gone.wait()


def test_answers_wait_for_no_acknowledgement() -> None:
    """Accepted connections send at once, whichever loop serves them: no piece waits for the one before."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
