"""Keys, stream tokens and pages of other origins, against a real service: docs/protocol.md, 5.8."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import jwt
import pytest

from streaming.http.access import Needs
from streaming.http.routes import Route
from tests.all_routes import ALL_ROUTES
from tests.service import (
    SLOW,
    Service,
    connect_http,
    failed_start,
    open_events,
    read_events,
    running_service,
    stream_path,
    text_of,
)

OLD_KEY: Final = "the-key-of-yesterday"
KEY: Final = "the-key-of-today-and-tomorrow"
SECRET: Final = "signs-and-verifies-" * 4
PAGE: Final = "https://app.example.com"
RUN: Final = "/api/agents/TravelPlanner/run"
CALLBACKS: Final = "/api/agents/CallbackAgent/callbacks"
WITH_KEY: Final = {"x-functions-key": KEY}
WAIT: Final = {"x-ms-wait-for-response": "true"}


@pytest.fixture(scope="module")
def guarded(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys, tokens, and one origin whose pages may use it."""
    settings = {
        "API_KEYS": f"{OLD_KEY}, {KEY}",
        "STREAM_TOKEN_SECRETS": f"{SECRET},{'only-verifies-' * 5}",
        "CORS_ALLOWED_ORIGINS": PAGE,
        # What is not there is asked for often.
        "STREAM_APPEAR_TIMEOUT_SECONDS": "0.2",
    }
    with running_service(tmp_path_factory.mktemp("guarded") / "data", program=program, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def public(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service where everybody may start a conversation, and nobody reads another's; its agents are slow."""
    settings = {"STREAM_TOKEN_SECRETS": SECRET, "DEMO_MODEL_WORDS_PER_SECOND": SLOW}
    settings |= {"RUN_WAIT_TIMEOUT_SECONDS": "0.2", "CORS_ALLOWED_ORIGINS": "*"}
    with running_service(tmp_path_factory.mktemp("public") / "data", program=program, **settings) as running:
        yield running


@pytest.fixture
async def client(guarded: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with connect_http(guarded) as connected:
        yield connected


@pytest.fixture
async def anybody(public: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with connect_http(public) as connected:
        yield connected


async def finished(client: httpx.AsyncClient) -> dict[str, Any]:
    """A run that has ended, as its client was told of it."""
    body = {"message": "Tell me a joke", "wait_for_response": True}
    response = await client.post(RUN, json=body, headers=WITH_KEY)
    assert response.status_code == 200, response.text
    return dict(response.json())


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def token_for(conversation_id: str, *, lifetime_seconds: int = 60) -> str:
    now = int(time.time())
    claims = {"aud": "agent-stream", "sub": conversation_id, "iat": now, "exp": now + lifetime_seconds}
    return jwt.encode(claims, SECRET, algorithm="HS256")


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("route", ALL_ROUTES, ids=lambda route: route.name)
async def test_every_route_wants_a_key(client: httpx.AsyncClient, route: Route) -> None:
    """Where keys are set, who has none gets 401; health, the OpenAPI document and the chat page are open."""
    path = route.path.format(agent="TravelPlanner", conversation_id="c", file="chat.js")
    for headers in ({}, {"x-functions-key": "wrong"}, {"x-functions-key": KEY + "x"}):
        response = await client.request(route.method, path, headers=headers)
        if route.needs in (Needs.NOTHING, Needs.HEALTH):
            assert response.status_code == 200
        else:
            assert code_of(response) == (401, "unauthorized")
            assert "x-functions-key" in response.json()["error"]
            assert response.headers["www-authenticate"].startswith("ApiKey ")


@pytest.mark.parametrize("key", [OLD_KEY, KEY])
async def test_each_key_opens(client: httpx.AsyncClient, key: str) -> None:
    """Any of the keys opens, as a header or in the query: so keys can be changed without a gap."""
    headers = {"x-functions-key": key}
    run = (await client.post(RUN, content="Hello", headers=headers)).json()
    conversation = run["conversation_id"]
    assert (await client.get(run["links"]["status"], headers=headers)).status_code == 200
    response = await client.get(stream_path(conversation), params={"code": key})
    assert response.status_code == 200
    assert "event: done" in response.text


async def test_a_key_reaches_what_is_refused_for_other_reasons(client: httpx.AsyncClient) -> None:
    """With a key the contract's own errors are back: an unknown conversation, agent or cursor."""
    nobody = await client.get(stream_path("nobody"), headers=WITH_KEY)
    assert code_of(nobody) == (404, "conversation_not_found")
    agent = await client.post("/api/agents/Nobody/run", content="x", headers=WITH_KEY)
    assert code_of(agent) == (404, "agent_not_found")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("API_KEYS", "hunter2", "key 1 has 7 characters, expected at least 16"),
        ("API_KEYS", f"{KEY},pass word with blanks", "key 2 has a character"),
        ("STREAM_TOKEN_SECRETS", f"{SECRET},hunter2", "secret 2 has 7 characters, expected at least 32"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example/", "got 'https://a.example/'"),
        ("TRUSTED_PROXIES", "proxy.local", "got 'proxy.local'"),
        ("MAX_HEADER_BYTES", "10", "got '10'"),
        ("HEALTH_ANONYMOUS", "perhaps", "got 'perhaps'"),
    ],
)
def test_a_start_that_would_not_protect(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str, problem: str
) -> None:
    """A secret that is too weak, or a setting that can't be meant, stops the start; no secret is repeated."""
    finished = failed_start(tmp_path_factory.mktemp("weak") / "data", **{name: value})
    assert finished.returncode == 2
    assert f"{name}: {problem}" in finished.stderr
    assert not any(secret in finished.stderr for secret in ("hunter2", KEY, SECRET, "blanks"))


async def test_health_behind_a_key(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """HEALTH_ANONYMOUS=false makes health want a key too."""
    data_dir = tmp_path_factory.mktemp("closed") / "data"
    with running_service(data_dir, program=program, API_KEYS=KEY, HEALTH_ANONYMOUS="false") as service:
        async with connect_http(service) as client:
            assert code_of(await client.get("/api/health")) == (401, "unauthorized")
            assert (await client.get("/api/health", headers=WITH_KEY)).status_code == 200


# ── Stream tokens ────────────────────────────────────────────────────────────────────────────────────


async def test_a_page_reads_with_its_token(client: httpx.AsyncClient) -> None:
    """The token that a run's answer carries reads that conversation: as header, bearer or query parameter."""
    run = await finished(client)
    token, conversation = run["stream_token"], run["conversation_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", run["stream_token_expires_at"])
    ways: list[dict[str, Any]] = [
        {"headers": {"x-stream-token": token}},
        {"headers": {"authorization": f"Bearer {token}"}},
        {"params": {"token": token}},
    ]
    for way in ways:
        assert text_of(await read_events(client, conversation, **way)) == run["response"]
        status = await client.get(f"{RUN}/{conversation}", **way)
        assert status.json()["response"] == run["response"]
        assert (await client.delete(f"{RUN}/{conversation}", **way)).status_code == 200


async def test_an_event_source_reconnects_with_its_token(client: httpx.AsyncClient) -> None:
    """A browser's EventSource repeats its URL with the token, reads on, and is stopped by 204."""
    run = await finished(client)
    params = {"token": run["stream_token"]}
    events = await read_events(client, run["conversation_id"], params)
    after = {"last-event-id": events[2].id}
    assert await read_events(client, run["conversation_id"], params, after) == events[3:]
    end = {"last-event-id": events[-1].id}
    response = await client.get(stream_path(run["conversation_id"]), params=params, headers=end)
    assert response.status_code == 204


@pytest.mark.parametrize(
    "method_and_path",
    [("GET", RUN), ("DELETE", RUN), ("GET", "/api/agent/stream"), ("GET", CALLBACKS), ("DELETE", CALLBACKS)],
)
async def test_another_conversation_is_closed(
    client: httpx.AsyncClient, method_and_path: tuple[str, str]
) -> None:
    """A token opens no other conversation, and no answer tells whether that one exists."""
    method, path = method_and_path
    theirs = await finished(client)
    answers = []
    for conversation in (theirs["conversation_id"], "was-never-there", "%20", "\u00fc" * 200):
        for headers in (
            {"x-stream-token": token_for("mine")},
            {"x-stream-token": token_for(conversation, lifetime_seconds=-1)},
            {"x-stream-token": "nonsense"},
            {},
        ):
            response = await client.request(method, f"{path}/{conversation}", headers=headers)
            answers.append((response.status_code, response.content))
    assert answers[:4] * 4 == answers
    codes = [(status, re.findall(rb'"code": "(\w+)"', body)[0].decode()) for status, body in answers[:4]]
    assert codes == [
        (403, "forbidden"),
        (401, "token_expired"),
        (401, "unauthorized"),
        (401, "unauthorized"),
    ]


async def test_joining_a_conversation(client: httpx.AsyncClient) -> None:
    """A run in a conversation takes its token or a key, wherever it is named; in a new one it takes a key."""
    run = await finished(client)
    conversation, token = run["conversation_id"], {"x-stream-token": run["stream_token"]}
    body = {"message": "And another?", "conversation_id": conversation, "wait_for_response": True}
    again = await client.post(RUN, json=body, headers=token)
    assert (again.status_code, again.json()["conversation_id"]) == (200, conversation)
    assert again.headers["x-stream-token"] == again.json()["stream_token"]
    assert (await client.post(RUN, json=body, headers=WITH_KEY)).status_code == 200
    others = {"x-stream-token": token_for("mine")}
    assert code_of(await client.post(RUN, json=body, headers=others)) == (403, "forbidden")
    for name in ("conversation_id", "session_id", "thread_id"):
        response = await client.post(RUN, content="x", params={name: conversation}, headers=others)
        assert code_of(response) == (403, "forbidden")
        named = {**others, f"x-ms-{name.replace('_', '-')}": conversation}
        assert code_of(await client.post(RUN, content="x", headers=named)) == (403, "forbidden")
    assert code_of(await client.post(RUN, content="x", headers=token)) == (401, "unauthorized")


async def test_text_answers_carry_the_token(client: httpx.AsyncClient) -> None:
    """An answer that is bare text has the token as a header, and is not to be kept by any cache."""
    headers = {**WITH_KEY, **WAIT, "content-type": "text/plain"}
    response = await client.post(RUN, content="Tell me a joke", headers=headers)
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["cache-control"] == "no-store"
    token = {"x-stream-token": response.headers["x-stream-token"]}
    events = await read_events(client, response.headers["x-conversation-id"], headers=token)
    assert text_of(events) == response.text


async def test_links_are_free_of_tokens(client: httpx.AsyncClient) -> None:
    """Links are shown, kept and logged: no token is in them."""
    run = await finished(client)
    report = await client.get(run["links"]["status"], headers={"x-stream-token": run["stream_token"]})
    assert run["stream_token"] not in str(run["links"]) + report.text


async def test_without_keys_anybody_starts_and_nobody_else_reads(anybody: httpx.AsyncClient) -> None:
    """With tokens alone anybody starts a new conversation, which only its token opens; no id is chosen."""
    started = await anybody.post(RUN, content="Plan a trip to Oslo")
    assert started.status_code == 202
    run = started.json()
    conversation, token = run["conversation_id"], run["stream_token"]
    assert code_of(await anybody.get(stream_path(conversation))) == (401, "unauthorized")
    async with open_events(anybody, conversation, {"token": token}) as stream:
        assert (await stream.next()).event == "message"
    chosen = {"message": "x", "conversation_id": "chosen"}
    assert code_of(await anybody.post(RUN, json=chosen)) == (401, "unauthorized")
    stopped = await anybody.delete(f"{RUN}/{conversation}", headers={"x-stream-token": token})
    assert stopped.status_code == 202


async def test_answers_of_failed_waits_carry_the_token(anybody: httpx.AsyncClient) -> None:
    """Who gave up waiting is told which conversation goes on, and given its token."""
    response = await anybody.post(RUN, content="Plan a trip to Oslo", headers=WAIT)
    assert code_of(response) == (504, "wait_timeout")
    conversation, token = response.headers["x-conversation-id"], response.headers["x-stream-token"]
    stopped = await anybody.delete(f"{RUN}/{conversation}", headers={"x-stream-token": token})
    assert stopped.status_code == 202


# ── Pages of other origins ───────────────────────────────────────────────────────────────────────────


@pytest.mark.standalone
async def test_a_page_of_an_allowed_origin(client: httpx.AsyncClient) -> None:
    """Its preflight passes without any key, for all that our clients send, and it may read our headers."""
    wanted = "authorization,content-type,last-event-id,x-functions-key,x-ms-wait-for-response,x-stream-token"
    preflight = {"origin": PAGE, "access-control-request-headers": wanted}
    for method in ("GET", "POST", "DELETE"):
        asked = {**preflight, "access-control-request-method": method}
        response = await client.options(stream_path("c"), headers=asked)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "access-control-allow-credentials" not in response.headers
    run = await client.post(RUN, content="Hello", headers={**WITH_KEY, "origin": PAGE})
    assert run.headers["access-control-allow-origin"] == PAGE
    exposed = run.headers["access-control-expose-headers"].replace(" ", "").split(",")
    assert {"x-conversation-id", "x-stream-token", "retry-after"} <= set(exposed)
    refused = await client.get(stream_path("c"), headers={"origin": PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.standalone
async def test_a_page_of_another_origin(client: httpx.AsyncClient) -> None:
    """A page of any other origin is not let in: neither its preflight nor an answer allows it."""
    stranger = {"origin": "https://evil.example.com", "access-control-request-method": "POST"}
    preflight = await client.options(RUN, headers=stranger)
    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers
    answer = await client.get("/api/health", headers=stranger)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.standalone
async def test_streams_stay_live_for_pages(anybody: httpx.AsyncClient) -> None:
    """A page of any origin, where all may, gets each piece of a stream while the agent still writes."""
    run = (await anybody.post(RUN, content="Plan a trip to Oslo")).json()
    token = {"x-stream-token": run["stream_token"]}
    asked = {"origin": "https://any.example", **token}
    async with open_events(anybody, run["conversation_id"], headers=asked) as stream:
        assert stream.response.headers["access-control-allow-origin"] == "*"
        assert (await stream.next()).event == "message"
        report = (await anybody.get(f"{RUN}/{run['conversation_id']}", headers=token)).json()
        assert report["status"] == "Running"
    await anybody.delete(f"{RUN}/{run['conversation_id']}", headers=token)


async def test_cors_is_off_by_default(http: httpx.AsyncClient) -> None:
    """Unless the setting says so, no page of another origin may use the service."""
    answer = await http.get("/api/health", headers={"origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
