"""Runs pushed to the vendor's clients, over drops, expired tokens and a service that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pysignalr.client import SignalRClient

from signalr_emulator.server import SignalREmulator
from tests.service import PATIENCE, Service, connect_http, eventually, read_plain, running_service, start_run
from tests.signalr.helpers import (
    CONNECTION_STRING,
    Cable,
    HubClient,
    emulator,
    following,
    join,
    negotiated,
    new_thread,
    text_of_calls,
)

#: So that an answer lasts about two seconds.
PACE = "240"
QUESTION = "Plan a 1-day trip to Rome"
#: Of clients, in minutes: about five seconds, longer than a busy machine takes to connect.
TOKEN_TTL = "0.085"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Pushing:
    """A service, the emulator it pushes by, and the cable that clients reach it by."""

    service: Service
    http: httpx.AsyncClient
    emulator: SignalREmulator
    cable: Cable


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pushing]:
    """One for all tests here; whoever stops the emulator starts another."""
    async with AsyncExitStack() as stack:
        signalr = await stack.enter_async_context(emulator())
        cable = await stack.enter_async_context(Cable(signalr.port))
        settings = {
            CONNECTION_STRING: f"{signalr.connection_string}ClientEndpoint={cable.url};",
            "DEMO_MODEL_WORDS_PER_SECOND": PACE,
            "SIGNALR_TOKEN_TTL_MINUTES": TOKEN_TTL,
        }
        folder = tmp_path_factory.mktemp("pushing") / "data"
        service = stack.enter_context(running_service(folder, **settings))
        http = await stack.enter_async_context(connect_http(service))
        yield Pushing(service, http, signalr, cable)


async def test_a_dropped_connection_loses_nothing(parts: Pushing) -> None:
    """The vendor's client, cut twice in mid-run, is in its group again by itself, and has the exact text."""
    thread, user = await new_thread(parts.http), await negotiated(parts.http)
    async with following(parts.service.url, thread, user["userToken"]) as follower:
        run = await start_run(parts.http, QUESTION, conversation_id=thread["thread_id"])
        await follower.expect(run["correlation_id"])
        connections = [value for name, value in follower.said if name == "connected"]
        for _ in range(2):
            await follower.until("text")
            assert parts.cable.cut() >= 1
            connections.append(await follower.until("connected"))
            in_group = parts.emulator._hubs.get("travel").in_group(thread["thread_id"])
            assert [each.id for each in in_group] == connections[-1:]
            await follower.until("text")
        assert (await follower.until("end"))["status"] == "completed"
    assert len(set(connections)) == 3
    assert follower.text == await read_plain(parts.http, thread["thread_id"])
    assert [value for name, value in follower.said if name == "event"].count("tool_call") == 2


async def test_an_expired_token_is_renewed(parts: Pushing) -> None:
    """A client whose token has expired is cut, negotiates anew as the same user, and goes on."""
    thread, user = await new_thread(parts.http), await negotiated(parts.http)
    async with following(parts.service.url, thread, user["userToken"]) as follower:

        async def is_expired() -> bool:
            path = f"{user['url'].replace('/?', '/negotiate?')}"
            headers = {"authorization": f"Bearer {user['accessToken']}"}
            return (await parts.http.post(path, headers=headers)).status_code == 401

        await eventually(is_expired, "the token expires")
        run = await start_run(parts.http, QUESTION, conversation_id=thread["thread_id"])
        await follower.expect(run["correlation_id"])
        await follower.until("text")
        parts.cable.cut()
        await follower.until("connected")
        await follower.until("end")
    assert follower.text == await read_plain(parts.http, thread["thread_id"])


async def test_pysignalr_hears_it_all(parts: Pushing) -> None:
    """A client of another maker is told the exact text, in order, and the end."""
    thread, user = await new_thread(parts.http), await negotiated(parts.http)
    client = SignalRClient(
        f"{parts.service.url}/api/agent", headers={"x-user-token": user["userToken"]}, retry_count=1
    )
    told: list[tuple[str, dict[str, Any]]] = []
    is_open, has_ended = asyncio.Event(), asyncio.Event()

    def hear(target: str) -> None:
        async def heard(arguments: list[dict[str, Any]]) -> None:
            told.append((target, arguments[0]))
            if target == "agentDone":
                has_ended.set()

        client.on(target, heard)

    async def opened() -> None:
        is_open.set()

    for target in ("agentMessage", "agentEvent", "agentDone"):
        hear(target)
    client.on_open(opened)
    running = asyncio.create_task(client.run())
    async with asyncio.timeout(PATIENCE):
        await is_open.wait()
        headers = {"x-user-token": user["userToken"], "x-stream-token": thread["stream_token"]}
        assert (await join(parts.http, thread["thread_id"], headers)).status_code == 200
        await start_run(parts.http, "Tell me a joke", conversation_id=thread["thread_id"])
        await has_ended.wait()
    running.cancel()
    await asyncio.wait([running])
    assert text_of_calls(told) == await read_plain(parts.http, thread["thread_id"])
    sequences = [argument["sequence"] for _, argument in told]
    assert sequences == sorted(set(sequences))


async def test_who_joins_in_mid_run_gets_all_of_it(parts: Pushing) -> None:
    """A client that joins while the answer is being written is pushed the run from its start."""
    thread = await new_thread(parts.http)
    await start_run(parts.http, QUESTION, conversation_id=thread["thread_id"])

    async def is_written() -> bool:
        path = f"/api/agents/TravelPlanner/run/{thread['thread_id']}"
        return bool((await parts.http.get(path)).json().get("entries", 0) > 20)

    await eventually(is_written, "a part of the answer is there")
    user = await negotiated(parts.http)
    async with HubClient(user["url"], user["accessToken"]) as client:
        headers = {"x-user-token": user["userToken"], "x-stream-token": thread["stream_token"]}
        assert (await join(parts.http, thread["thread_id"], headers)).status_code == 200
        calls = await client.calls_up_to("agentDone")
    assert text_of_calls(calls) == await read_plain(parts.http, thread["thread_id"])


async def test_a_service_that_is_away_holds_nothing_up(parts: Pushing) -> None:
    """While the SignalR service is away, streams are whole; when it is back, pushes go on where they were."""
    thread, user = await new_thread(parts.http), await negotiated(parts.http)
    port = parts.emulator.port
    headers = {"x-user-token": user["userToken"], "x-stream-token": thread["stream_token"]}
    assert (await join(parts.http, thread["thread_id"], headers)).status_code == 200
    await parts.emulator.__aexit__(None, None, None)
    refused = await join(parts.http, thread["thread_id"], headers)
    assert (refused.status_code, refused.json()["code"]) == (503, "push_unavailable")
    run = await start_run(parts.http, QUESTION, conversation_id=thread["thread_id"])
    text = await read_plain(parts.http, thread["thread_id"])
    assert text.startswith("# ")
    async with emulator(port=port):
        renewed = await negotiated(parts.http, **{"x-user-token": user["userToken"]})
        async with HubClient(renewed["url"], renewed["accessToken"]) as client:
            # The new one has forgotten who is where.
            assert (await join(parts.http, thread["thread_id"], headers)).status_code == 200
            calls = await client.calls_up_to("agentDone")
    following_on = calls[0][1]["previousEntryId"]
    for _, argument in calls:
        assert argument["previousEntryId"] == following_on
        assert argument["correlationId"] == run["correlation_id"]
        following_on = argument["entryId"]
    assert text.endswith(text_of_calls(calls))
    log = parts.service.log
    assert log.count("push failed") == 1
    assert text[:40] not in log
    assert user["accessToken"] not in log
