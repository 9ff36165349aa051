"""What the HTTP routes take, and how they refuse the rest: by the right status and a sentence for people."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.service import PATIENCE, Service, finished_run, start_run

RUN = "/api/agents/TravelPlanner/run"
JSON = {"content-type": "application/json"}
NAMES = ("conversation_id", "session_id", "thread_id")
HEADERS = ("x-ms-conversation-id", "x-ms-session-id", "x-ms-thread-id")
#: What of the inside must never be seen outside.
INTERNALS = ("Traceback", "redis", "Redis", "ResponseError", ".py", "WRONGTYPE", "grpc")


def check_error(response: httpx.Response, status: int, code: str, *words: str) -> None:
    """An error is JSON: a sentence that names what was wrong, and a code for programs; nothing more."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"error", "code"}
    assert body["code"] == code
    for word in words:
        assert word in body["error"]
    for word in INTERNALS:
        assert word not in body["error"]
    assert len(body["error"]) < 400


@pytest.mark.parametrize("name", NAMES)
async def test_id_in_the_body(http: httpx.AsyncClient, name: str) -> None:
    """Each of the conversation's names is taken in the body, and all three are given back."""
    body = await start_run(http, **{name: f"by-body.{name}"})
    assert [body[alias] for alias in NAMES] == [f"by-body.{name}"] * 3


@pytest.mark.parametrize("name", NAMES)
async def test_id_in_the_query(http: httpx.AsyncClient, name: str) -> None:
    """Each of the conversation's names is taken in the query, for text messages too."""
    response = await http.post(RUN, content="Hi", params={name: f"by-query.{name}"})
    assert response.status_code == 202
    assert response.json()["conversation_id"] == f"by-query.{name}"


@pytest.mark.parametrize("name", HEADERS)
async def test_id_in_a_header(http: httpx.AsyncClient, name: str) -> None:
    """Each of the conversation's names is taken as a header."""
    response = await http.post(RUN, content="Hi", headers={name: f"by-header.{name}"})
    assert response.status_code == 202
    assert response.json()["conversation_id"] == f"by-header.{name}"


async def test_the_same_id_everywhere(http: httpx.AsyncClient) -> None:
    """The same conversation may be named in as many ways as a client likes."""
    response = await http.post(
        RUN,
        json={"message": "Hi", **dict.fromkeys(NAMES, "the-same")},
        params=dict.fromkeys(NAMES, "the-same"),
        headers=dict.fromkeys(HEADERS, "the-same"),
    )
    assert response.status_code == 202


@pytest.mark.parametrize(
    ("body", "query", "header"),
    [
        ({"conversation_id": "a", "session_id": "b"}, {}, {}),
        ({"thread_id": "a"}, {"conversation_id": "b"}, {}),
        ({}, {"session_id": "a", "thread_id": "b"}, {}),
        ({}, {"conversation_id": "a"}, {"x-ms-session-id": "b"}),
        ({"conversation_id": "a"}, {}, {"x-ms-thread-id": "b"}),
    ],
)
async def test_conflicting_ids(
    http: httpx.AsyncClient, body: dict[str, str], query: dict[str, str], header: dict[str, str]
) -> None:
    """Two different conversations in one request are refused, never one of them picked."""
    response = await http.post(RUN, json={"message": "Hi", **body}, params=query, headers=header)
    check_error(response, 400, "invalid_request", "'a'", "'b'")


@pytest.mark.parametrize(
    "conversation_id",
    ["", " ", "x" * 129, "a b", "a@b", "{a}", "a/b", "../etc", "ä", "a\n", "\x00", "*", "a:b"],
)
async def test_invalid_id_in_the_body(http: httpx.AsyncClient, conversation_id: str) -> None:
    """A conversation id is 1 to 128 characters of A-Z a-z 0-9 . _ - and nothing else."""
    response = await http.post(RUN, json={"message": "Hi", "conversation_id": conversation_id})
    check_error(response, 400, "invalid_request", "conversation_id", "1 to 128 characters")


@pytest.mark.parametrize("conversation_id", ["x" * 128, "a", "A.b_c-9", "...", "-", "0"])
async def test_valid_ids(http: httpx.AsyncClient, conversation_id: str) -> None:
    """Every valid conversation id works, up to its answer."""
    assert (await finished_run(http, "Tell me a joke", conversation_id=conversation_id))["response"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message", 5),
        ("message", None),
        ("message", ["Hi"]),
        ("message", {"text": "Hi"}),
        ("message", ""),
        ("message", " \n\t "),
        ("conversation_id", 5),
        ("session_id", ["a"]),
        ("thread_id", {}),
        ("wait_for_response", "perhaps"),
        ("wait_for_response", 7),
        ("wait_for_response", []),
        ("role", "root"),
        ("role", 5),
        ("enable_tool_calls", "perhaps"),
        ("enable_tool_calls", 2),
        ("response_format", 5),
        ("response_format", "xml"),
    ],
)
async def test_wrong_types(http: httpx.AsyncClient, field: str, value: Any) -> None:
    """A field of the wrong type or value is refused by its name, and no run is started."""
    response = await http.post(RUN, json={"message": "Hi", field: value})
    check_error(response, 400, "invalid_request", field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"message": "Hi"',
        b"[]",
        b'["Hi"]',
        b'"Hi"',
        b"null",
        b"[" * 100_000,
        b'{"message":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"message": "Hi", "conversation_id": ' + b"9" * 5_000 + b"}",
        b'{"message": NaN}',
    ],
    ids=lambda body: repr(body[:16]),
)
async def test_malformed_json(http: httpx.AsyncClient, body: bytes) -> None:
    """What is no JSON object is refused with a sentence, however deep or long it is."""
    response = await http.post(RUN, content=body, headers=JSON)
    check_error(response, 400, "invalid_request", "expected")


@pytest.mark.parametrize("body", [b"", b"  \n "])
async def test_empty_text(http: httpx.AsyncClient, body: bytes) -> None:
    """A text message with nothing in it is refused."""
    response = await http.post(RUN, content=body, headers={"content-type": "text/plain"})
    check_error(response, 400, "invalid_request", "message")


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
async def test_invalid_utf8(http: httpx.AsyncClient, kind: str) -> None:
    """A body that is not UTF-8 is refused by that name."""
    response = await http.post(RUN, content=b'{"message": "\xff\xfe"}', headers={"content-type": kind})
    check_error(response, 400, "invalid_request", "body", "UTF-8")


async def test_byte_order_mark(http: httpx.AsyncClient) -> None:
    """A byte order mark, which Windows tools write, is no part of the message."""
    response = await http.post(RUN, content=b"\xef\xbb\xbfHi", headers={"content-type": "text/plain"})
    assert response.json()["message"] == "Hi"
    response = await http.post(RUN, content=b'\xef\xbb\xbf{"message": "Hi"}', headers=JSON)
    assert response.json()["message"] == "Hi"


async def test_lone_surrogate_in_a_message(http: httpx.AsyncClient) -> None:
    """Half of an emoji, which JSON can carry and UTF-8 can't, becomes U+FFFD; a pair becomes the emoji."""
    response = await http.post(RUN, content=rb'{"message": "a\ud83dz \ud83d\uddfc"}', headers=JSON)
    assert response.status_code == 202
    assert response.json()["message"] == "a\ufffdz 🗼"


async def test_too_large(http: httpx.AsyncClient) -> None:
    """A body above the limit is refused with 413 and the limit; one just below is taken."""
    response = await http.post(RUN, content=b"x" * 1_048_577, headers={"content-type": "text/plain"})
    check_error(response, 413, "request_too_large", "1048576 bytes")
    response = await http.post(RUN, content=b"x" * 1_048_576, headers={"content-type": "text/plain"})
    assert response.status_code == 202


def test_too_large_without_a_length(service: Service) -> None:
    """A body of unknown length is refused as soon as it passes the limit, not read to its end."""
    with socket.create_connection(service.address, timeout=PATIENCE) as client:
        client.sendall(f"POST {RUN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(17):
            client.sendall(piece)
        # The body is not over, but the answer is here.
        assert client.recv(12) == b"HTTP/1.1 413"


@pytest.mark.standalone
@pytest.mark.parametrize("declared", ["999999999999999999", "1048577"])
def test_too_large_by_its_own_word(service: Service, declared: str) -> None:
    """A body that declares itself too large is refused before it is sent."""
    with socket.create_connection(service.address, timeout=PATIENCE) as client:
        client.sendall(f"POST {RUN} HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/api/agents/Nobody/run", "agent_not_found"),
        ("GET", "/api/agents/Nobody/run/known", "agent_not_found"),
        ("DELETE", "/api/agents/Nobody/run/known", "agent_not_found"),
        ("GET", f"{RUN}/unknown", "run_not_found"),
        ("DELETE", f"{RUN}/unknown", "run_not_found"),
        ("GET", f"{RUN}/known?run=unknown", "run_not_found"),
        ("DELETE", f"{RUN}/known?run=unknown", "run_not_found"),
        ("GET", "/api/agents/CallbackAgent/run/known", "run_not_found"),
        ("DELETE", "/api/agents/CallbackAgent/run/known", "run_not_found"),
        ("GET", "/api/agent/stream/known?run=unknown", "run_not_found"),
        ("GET", "/api/agent/stream/unknown", "conversation_not_found"),
    ],
)
async def test_what_is_not_there(http: httpx.AsyncClient, method: str, path: str, code: str) -> None:
    """An unknown agent, conversation or run is a 404 in JSON with a code that says which."""
    await finished_run(http, "Tell me a joke", conversation_id="known")
    check_error(await http.request(method, path), 404, code)


@pytest.mark.standalone
@pytest.mark.parametrize("path", ["/api/nothing", "/nothing", "/api/agent/stream/"])
async def test_unknown_paths(http: httpx.AsyncClient, path: str) -> None:
    """An unknown path is a 404 in JSON."""
    check_error(await http.get(path), 404, "not_found")


@pytest.mark.standalone
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", RUN),
        ("PUT", RUN),
        ("POST", f"{RUN}/known"),
        ("DELETE", "/api/agent/stream/known"),
        ("POST", "/api/health"),
    ],
)
async def test_wrong_method(http: httpx.AsyncClient, method: str, path: str) -> None:
    """A method that a route has not is a 405 in JSON that names those it has."""
    response = await http.request(method, path)
    check_error(response, 405, "method_not_allowed")
    assert response.headers["allow"]


async def test_unknown_agent_names_the_known(http: httpx.AsyncClient) -> None:
    """Who asks for an agent that there is not is told which there are."""
    response = await http.post("/api/agents/travelplanner/run", content="Hi")
    check_error(response, 404, "agent_not_found", "CallbackAgent, TravelPlanner")


async def test_refused_values_are_shortened(http: httpx.AsyncClient) -> None:
    """An error repeats enough of a refused value to recognise it, and never all of a long one."""
    response = await http.post(RUN, json={"message": "Hi", "role": "r" * 100_000})
    check_error(response, 400, "invalid_request", "role is 'rrrr")


async def test_refused_requests_start_nothing(http: httpx.AsyncClient) -> None:
    """A refused request leaves no trace: its conversation stays unknown."""
    body = {"message": "Hi", "conversation_id": "never-started", "role": "root"}
    assert (await http.post(RUN, json=body)).status_code == 400
    check_error(await http.get(f"{RUN}/never-started"), 404, "run_not_found")


async def test_unknown_fields_in_json(http: httpx.AsyncClient) -> None:
    """Unknown fields are ignored, so that newer clients work with older services."""
    response = await http.post(RUN, content=json.dumps({"message": "Hi", "novelty": [1]}), headers=JSON)
    assert response.status_code == 202


@pytest.mark.parametrize("path", ["/api/health/", f"{RUN}/", "/api/agent/stream/known/"])
def test_no_redirects(service: Service, path: str) -> None:
    """A path that is not quite a route's is a 404; a redirect would lead to where the Host header says."""
    with socket.create_connection(service.address, timeout=PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65_536), b"")).decode()
    assert answer.startswith("HTTP/1.1 404"), answer
    assert "elsewhere" not in answer
