"""The two hosts differ in their outermost layer only: what clients get is the same, byte for byte."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import pytest

from tests.functions_host import PROGRAM as FUNCTIONS
from tests.functions_host import is_installed
from tests.http.conftest import STANDALONE
from tests.service import Service, connect_http, running_service

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="azure-functions-runtime is missing: make test installs it"
)

TRAVEL: Final = "/api/agents/TravelPlanner/run"
CHAT: Final = "/api/agents/CallbackAgent/run"
JSON: Final = {"content-type": "application/json"}
TEXT: Final = {"content-type": "text/plain"}
SSE: Final = {"accept": "text/event-stream"}
WAIT: Final = {"x-ms-wait-for-response": "true"}

#: What is made anew each time: ids of runs, tokens, entries and times.
_MADE: Final = (
    (re.compile(rb"eyJ[\w.-]+"), b"TOKEN"),
    (re.compile(rb"\b\d{13}-\d+\b"), b"ENTRY"),
    (re.compile(rb"[0-9a-f]{32}"), b"ID"),
    (re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"), b"TIME"),
)
#: Of the connection and the server, not of the answer.
_OF_THE_SERVER: Final = {"date", "server", "connection", "transfer-encoding", "content-length"}

#: Asked of each host in this order; each row begins where the one before ended.
ASKED: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("GET", "/api/health", {}),
    ("GET", "/api/health/live", {}),
    ("GET", "/api/health/ready", {}),
    ("GET", "/api/openapi.json", {}),
    ("POST", f"{TRAVEL}?conversation_id=one", {"content": "Plan a 1-day trip to Rome", "headers": TEXT}),
    ("GET", "/api/agent/stream/one", {"headers": SSE}),
    ("GET", "/api/agent/stream/one?cursor=0", {"headers": SSE}),
    ("GET", "/api/agent/stream/one", {"headers": {"accept": "text/plain"}}),
    ("GET", f"{TRAVEL}/one", {}),
    ("DELETE", f"{TRAVEL}/one", {}),
    ("POST", f"{CHAT}?thread_id=two", {"content": "Tell me a joke", "headers": TEXT}),
    (
        "POST",
        f"{CHAT}?thread_id=two",
        {"content": "Another", "headers": {**TEXT, "accept": "application/json"}},
    ),
    ("GET", "/api/agent/stream/two?events=all&cursor=0&follow=false", {"headers": SSE}),
    ("GET", "/api/agents/CallbackAgent/callbacks/two", {}),
    ("GET", "/api/agents/CallbackAgent/callbacks/two?limit=1&since=2000-01-01T00:00:00+00:00", {}),
    ("GET", "/api/agents/CallbackAgent/callbacks/two?limit=0", {}),
    ("GET", "/api/agents/CallbackAgent/callbacks/two?since=then", {}),
    ("GET", "/api/agents/CallbackAgent/callbacks/two/timeline", {}),
    ("DELETE", "/api/agents/CallbackAgent/callbacks/two", {}),
    ("GET", "/api/agents/CallbackAgent/callbacks/two", {}),
    ("GET", "/api/agents/Nobody/callbacks/two", {}),
    ("GET", "/api/agents/CallbackAgent/callbacks/%E2%98%83", {}),
    ("POST", TRAVEL, {"json": {"message": "Hi", "session_id": "three", "wait_for_response": True}}),
    ("POST", TRAVEL, {"content": '{"message": "Hé 🗼", "thread_id": "four"}', "headers": {**JSON, **WAIT}}),
    ("POST", TRAVEL, {"content": '{"message": ', "headers": JSON}),
    ("POST", TRAVEL, {"content": b"\xff", "headers": TEXT}),
    ("POST", TRAVEL, {"content": b"", "headers": TEXT}),
    ("POST", TRAVEL, {"content": b"x" * 1_048_577, "headers": TEXT}),
    ("POST", TRAVEL, {"json": {"message": "Hi", "role": "root"}}),
    ("POST", f"{TRAVEL}?conversation_id=a%20b", {"content": "Hi", "headers": TEXT}),
    ("POST", "/api/agents/Nobody/run", {"content": "Hi", "headers": TEXT}),
    ("GET", f"{TRAVEL}/unknown", {}),
    ("GET", f"{TRAVEL}/one?run=unknown", {}),
    ("DELETE", f"{TRAVEL}/unknown", {}),
    ("GET", "/api/agent/stream/unknown", {"headers": SSE}),
    ("GET", "/api/agent/stream/one?cursor=x", {"headers": SSE}),
    ("GET", "/api/agent/stream/one?run=unknown", {"headers": SSE}),
    ("GET", "/api/agent/stream/one?follow=maybe", {"headers": SSE}),
    ("GET", "/api/agent/stream/%E2%98%83", {"headers": SSE}),
)


@pytest.fixture(scope="module", params=["open", "guarded"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """A service of each host, with the same settings."""
    settings = {"STREAM_APPEAR_TIMEOUT_SECONDS": "0.1"}
    if request.param == "guarded":
        # Nobody has a token for anything: what is refused is refused alike.
        settings |= {"STREAM_TOKEN_SECRETS": "signs-and-verifies-" * 4}
    folder = tmp_path_factory.mktemp("alike")
    with (
        running_service(folder / "standalone", program=STANDALONE, **settings) as standalone,
        running_service(folder / "functions", program=FUNCTIONS, **settings) as functions,
    ):
        yield [standalone, functions]


@pytest.fixture
async def clients(both: list[Service]) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connect_http(service)) for service in both]


def told(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """What a client gets, without what is made anew each time."""
    headers = {n: _same(v.encode()).decode() for n, v in response.headers.items() if n not in _OF_THE_SERVER}
    return response.status_code, headers, _same(response.content)


def _same(content: bytes) -> bytes:
    for pattern, name in _MADE:
        content = pattern.sub(name, content)
    return content


async def test_answers_are_the_same(clients: list[httpx.AsyncClient]) -> None:
    """Status, headers and every byte of each answer are the same on both hosts, ids and times apart."""
    for method, path, options in ASKED:
        answers = [told(await client.request(method, path, **options)) for client in clients]
        assert answers[0] == answers[1], f"{method} {path}"
