"""The routes of the push, on both hosts: docs/protocol.md, section 7. Two users never see each other."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import httpx
import jwt
import pytest
import pytest_asyncio

from bridges.signalr.settings import SignalRAddress
from signalr_emulator.server import SignalREmulator
from tests.http.conftest import STANDALONE
from tests.service import Service, connect_http, read_plain, running_service
from tests.signalr.helpers import (
    CONNECTION_STRING,
    HubClient,
    emulator,
    join,
    negotiated,
    new_thread,
    random_key,
    text_of_calls,
)

KEY: Final = "the-key-of-a-backend"
SECRET: Final = "signs-and-verifies-" * 4
WITH_KEY: Final = {"x-functions-key": KEY}
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - the address is this test's matter
JOKE: Final = "Tell me a short joke"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Hosts:
    """A service as it comes, and one with keys and tokens; both push by one emulator."""

    plain: Service
    http: httpx.AsyncClient
    guarded: httpx.AsyncClient
    emulator: SignalREmulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosts(program: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosts]:
    async with AsyncExitStack() as stack:
        signalr = await stack.enter_async_context(emulator())
        settings = {CONNECTION_STRING: signalr.connection_string}
        secrets = {"API_KEYS": KEY, "STREAM_TOKEN_SECRETS": SECRET}
        folder = tmp_path_factory.mktemp("push")
        plain = stack.enter_context(running_service(folder / "plain", program=program, **settings))
        guarded = stack.enter_context(
            running_service(folder / "guarded", program=program, **settings, **secrets)
        )
        http = await stack.enter_async_context(connect_http(plain))
        to_guarded = await stack.enter_async_context(connect_http(guarded))
        yield Hosts(plain, http, to_guarded, signalr)


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def run_joke(http: httpx.AsyncClient, thread_id: str, **headers: str) -> httpx.Response:
    """Start a run as the published page does."""
    return await http.post(
        f"/api/agents/TravelPlanner/run?thread_id={thread_id}",
        content=JOKE,
        headers={"content-type": "text/plain", "X-Wait-For-Response": "false", **headers},
    )


async def test_the_published_page_flow(hosts: Hosts) -> None:
    """The published page works unchanged: negotiate, connect, make a thread, join by connection, run."""
    negotiated_by_get = (await hosts.http.get("/api/agent/negotiate")).json()
    async with HubClient(negotiated_by_get["url"], negotiated_by_get["accessToken"]) as client:
        thread = await new_thread(hosts.http)
        joined = await join(hosts.http, thread["thread_id"], {}, client.connection_id)
        assert joined.json() == {"status": "joined", "group": thread["thread_id"]}
        run = await run_joke(hosts.http, thread["thread_id"])
        assert run.status_code == 202
        calls = await client.calls_up_to("agentDone")
    assert text_of_calls(calls) == await read_plain(hosts.http, thread["thread_id"])
    target, done = calls[-1]
    assert (target, done["status"]) == ("agentDone", "completed")
    assert done["conversationId"] == thread["thread_id"]
    assert done["correlationId"] == run.json()["correlation_id"]
    assert {"entryId", "previousEntryId", "sequence", "attempt"} <= done.keys()


async def test_two_users_never_see_each_other(hosts: Hosts) -> None:
    """Whatever another user tries with a thread's id, it gets into no group and hears nothing."""
    alice, mallory = await negotiated(hosts.http), await negotiated(hosts.http)
    hers, his = await new_thread(hosts.http), await new_thread(hosts.http)
    group = hers["thread_id"]
    async with (
        HubClient(alice["url"], alice["accessToken"]) as her_client,
        HubClient(mallory["url"], mallory["accessToken"]) as his_client,
    ):
        with_tokens = {"x-user-token": alice["userToken"], "x-stream-token": hers["stream_token"]}
        assert (await join(hosts.http, group, with_tokens)).status_code == 200
        as_himself = {"x-user-token": mallory["userToken"]}
        tried: list[tuple[dict[str, str], str | None, int]] = [
            ({}, his_client.connection_id, 401),
            (as_himself, None, 401),
            (as_himself, his_client.connection_id, 401),
            ({**as_himself, "x-stream-token": his["stream_token"]}, None, 403),
            ({**as_himself, "x-stream-token": forged(group, "guess-" * 8)}, None, 401),
            ({**as_himself, "x-stream-token": mallory["userToken"]}, None, 401),
            ({**as_himself, "x-stream-token": mallory["accessToken"]}, None, 401),
            ({"x-functions-key": "guess"}, his_client.connection_id, 401),
        ]
        for headers, connection, status in tried:
            response = await join(hosts.http, group, headers, connection)
            assert response.status_code == status, (headers, response.text)
        assert (await run_joke(hosts.http, group)).status_code == 202
        calls = await her_client.calls_up_to("agentDone")
        assert {argument["conversationId"] for _, argument in calls} == {group}
        # His own is the first that he hears of.
        own = {**as_himself, "x-stream-token": his["stream_token"]}
        assert (await join(hosts.http, his["thread_id"], own)).status_code == 200
        await run_joke(hosts.http, his["thread_id"])
        heard = await his_client.calls_up_to("agentDone")
    assert {argument["conversationId"] for _, argument in heard} == {his["thread_id"]}


def forged(subject: str, secret: str) -> str:
    now = int(time.time())
    claims = {"aud": "agent-stream", "sub": subject, "iat": now, "exp": now + 60}
    return jwt.encode(claims, secret, algorithm="HS256")


async def test_a_new_thread_is_its_makers(hosts: Hosts) -> None:
    """Without tokens the first connection joins a new thread, no second one; a try that failed counts not."""
    thread = (await new_thread(hosts.http))["thread_id"]
    first, second = await negotiated(hosts.http), await negotiated(hosts.http)
    async with (
        HubClient(first["url"], first["accessToken"]) as maker,
        HubClient(second["url"], second["accessToken"]) as other,
    ):
        unknown = await join(hosts.http, thread, {}, "no-such-connection")
        assert code_of(unknown) == (404, "connection_not_found")
        assert (await join(hosts.http, thread, {}, maker.connection_id)).status_code == 200
        assert code_of(await join(hosts.http, thread, {}, other.connection_id)) == (401, "unauthorized")
        # A thread that nobody made is nobody's.
        assert code_of(await join(hosts.http, "made-up", {}, other.connection_id)) == (401, "unauthorized")


async def test_a_user_stays_who_it_is(hosts: Hosts) -> None:
    """Whoever shows its user token is that user again, by header or as bearer; else it is a new one."""
    first = await negotiated(hosts.http)
    again = await negotiated(hosts.http, **{"x-user-token": first["userToken"]})
    bearer = await negotiated(hosts.http, authorization=f"Bearer {first['userToken']}")
    other = await negotiated(hosts.http)
    users = [user_of(each) for each in (first, again, bearer, other)]
    assert users[0] == users[1] == users[2] != users[3]
    assert len(users[0]) == 32
    assert first["url"] == SignalRAddress(hosts.emulator.endpoint).client_url("travel")
    forged_user = jwt.encode(
        {"aud": "agent-signalr-user", "sub": users[0], "iat": 0, "exp": 2**33}, random_key(), "HS256"
    )
    assert user_of(await negotiated(hosts.http, **{"x-user-token": forged_user})) != users[0]


def user_of(answer: dict[str, Any]) -> str:
    claims = jwt.decode(answer["accessToken"], options={"verify_signature": False})
    return str(claims["nameid"])


async def test_what_a_guarded_service_asks_for(hosts: Hosts) -> None:
    """With keys and tokens: a key makes a thread; its token lets a page negotiate, join, run and read."""
    http = hosts.guarded
    for path in ("negotiate", "create-thread", "join-group"):
        assert code_of(await http.post(f"/api/agent/{path}", json={})) == (401, "unauthorized")
    thread = await new_thread(http, **WITH_KEY)
    token = {"x-stream-token": thread["stream_token"]}
    assert code_of(await http.post("/api/agent/create-thread", headers=token)) == (401, "unauthorized")
    user = await negotiated(http, **token)
    async with HubClient(user["url"], user["accessToken"]) as client:
        headers = {**token, "x-user-token": user["userToken"]}
        assert (await join(http, thread["thread_id"], headers)).status_code == 200
        other = await new_thread(http, **WITH_KEY)
        assert code_of(await join(http, other["thread_id"], headers)) == (403, "forbidden")
        assert code_of(await run_joke(http, other["thread_id"], **token)) == (403, "forbidden")
        assert (await run_joke(http, thread["thread_id"], **token)).status_code == 202
        calls = await client.calls_up_to("agentDone")
    stream = await http.get(
        f"/api/agent/stream/{thread['thread_id']}", headers={**token, "accept": "text/plain"}
    )
    assert text_of_calls(calls) == stream.text


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("nonsense", "body is"),
        ("[]", "body is"),
        ("{}", "conversation_id is"),
        ('{"group": 7}', "group is 7"),
        ('{"group": "a b", "connectionId": "c"}', "conversation_id is 'a b'"),
        ('{"group": "thread"}', "connectionId is None"),
        (json.dumps({"group": "thread", "connectionId": "c" * 300}), "connectionId is"),
    ],
)
async def test_what_can_not_be_joined(hosts: Hosts, body: str, problem: str) -> None:
    """A request to join that can't be used is a 400 that names what is wrong."""
    response = await hosts.http.post("/api/agent/join-group", content=body)
    assert code_of(response) == (400, "invalid_request")
    assert problem in response.json()["error"]


async def test_an_expired_user_token(hosts: Hosts) -> None:
    """A user token that has expired is a 401 that says so: its user is to negotiate anew."""
    claims = {"aud": "agent-signalr-user", "sub": "u", "iat": 1, "exp": 2}
    expired = jwt.encode(claims, SECRET, "HS256")
    headers = {**WITH_KEY, "x-user-token": expired}
    response = await hosts.guarded.post("/api/agent/negotiate", headers=headers)
    assert code_of(response) == (401, "token_expired")


@pytest.fixture(scope="module")
def without_push(
    program: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that has no SignalR service."""
    if program != STANDALONE:
        yield request.getfixturevalue("service")
        return
    # Beyond loopback the standalone host starts no emulator.
    with running_service(tmp_path_factory.mktemp("silent") / "data", HOST=ANYWHERE) as service:
        service.url = service.url.replace(ANYWHERE, "127.0.0.1")
        yield service


async def test_without_a_service_to_push_by(without_push: Service) -> None:
    """Where no SignalR service is set, the routes say so, and all else works."""
    async with connect_http(without_push) as http:
        response = await http.post("/api/agent/negotiate")
        assert code_of(response) == (503, "push_unavailable")
        assert CONNECTION_STRING in response.json()["error"]
        thread = await new_thread(http)
        assert (await run_joke(http, thread["thread_id"])).status_code == 202
        assert await read_plain(http, thread["thread_id"])
