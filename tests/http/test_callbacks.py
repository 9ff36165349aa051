"""Callback telemetry over HTTP: docs/protocol.md, 5.10, and the published walk-through of CallbackAgent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from tests.service import (
    PATIENCE,
    Service,
    connect_http,
    eventually,
    open_events,
    read_events,
    running_service,
    start_run,
)

AGENT: Final = "/api/agents/CallbackAgent"
JOKE: Final = "Tell me a short joke"
#: What the published form has on every event.
PUBLISHED: Final = {
    *("timestamp", "agent_name", "thread_id", "correlation_id", "request_message", "event_type"),
}


@pytest.fixture
def thread() -> str:
    return uuid4().hex


def path(thread: str) -> str:
    return f"{AGENT}/callbacks/{thread}"


async def joke(http: httpx.AsyncClient, thread: str, message: str = JOKE) -> httpx.Response:
    """A run that was waited for."""
    response = await http.post(f"{AGENT}/run", params={"thread_id": thread}, content=message)
    assert response.status_code == 200, response.text
    return response


async def events_of(http: httpx.AsyncClient, thread: str, **params: str) -> list[dict[str, Any]]:
    response = await http.get(path(thread), params=params)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return list(response.json())


def curl(*arguments: str) -> str:
    """What curl prints."""
    found = shutil.which("curl")
    if found is None:
        pytest.skip("curl is not installed")
    command = [found, "--silent", "--show-error", *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout.decode()


def test_the_published_commands(service: Service, thread: str) -> None:
    """The published curl commands: run answers with the joke, callbacks tell of it, and can be deleted."""
    run, callbacks = f"{service.url}{AGENT}/run", f"{service.url}{path(thread)}"
    answer = curl("-X", "POST", f"{run}?thread_id={thread}", "-d", JOKE)
    assert "?" in answer
    events = json.loads(curl(callbacks))
    assert all(event.keys() >= PUBLISHED for event in events)
    assert {event["event_type"] for event in events} == {"stream", "final"}
    streamed = [event["text"] for event in events if event.get("update_kind") == "text"]
    assert "".join(streamed) == events[-1]["response_text"] == answer
    assert events[-1]["usage"]["type"] == "usage_details"
    assert events[-1]["usage"]["input_token_count"] > 0
    assert curl("-X", "DELETE", "-w", "%{http_code}", callbacks) == "204"
    assert json.loads(curl(callbacks)) == []


def test_the_published_commands_without_waiting(service: Service, thread: str) -> None:
    """With the header x-ms-wait-for-response: false, run answers at once and the callbacks tell the rest."""
    url = f"{service.url}{AGENT}/run?thread_id={thread}"
    accepted = json.loads(curl("-X", "POST", url, "-H", "x-ms-wait-for-response: false", "-d", JOKE))
    assert (accepted["status"], accepted["thread_id"]) == ("accepted", thread)
    curl(f"{service.url}{accepted['links']['stream']}")
    events = json.loads(curl(f"{service.url}{path(thread)}"))
    assert events[-1]["event_type"] == "final"
    assert {event["correlation_id"] for event in events} == {accepted["correlation_id"]}


async def test_every_event_says_whose_it_is(http: httpx.AsyncClient, thread: str) -> None:
    """Each event has the published fields, an id, and a time in UTC; times and ids don't run backwards."""
    await joke(http, thread)
    events = await events_of(http, thread)
    for event in events:
        assert (event["agent_name"], event["thread_id"]) == ("CallbackAgent", thread)
        assert event["request_message"] == JOKE
        assert datetime.fromisoformat(event["timestamp"]).utcoffset() is not None
        assert event["timestamp"].endswith("Z")
    times = [event["timestamp"] for event in events]
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    assert times == sorted(times)
    assert ids == sorted(set(ids))


async def test_the_end_is_there_once_the_stream_has_ended(http: httpx.AsyncClient) -> None:
    """Whoever has read done sees the final event, however fast they ask."""
    for _ in range(10):
        run = await start_run(http, JOKE, agent="CallbackAgent")
        await read_events(http, run["conversation_id"])
        assert (await events_of(http, run["conversation_id"]))[-1]["event_type"] == "final"


async def test_unknown_threads_have_no_events(http: httpx.AsyncClient, thread: str) -> None:
    """An unknown thread, and one of an agent that is not observed, are empty, and can be deleted."""
    assert await events_of(http, thread) == []
    assert (await http.delete(path(thread))).status_code == 204
    run = await start_run(http, JOKE, agent="TravelPlanner")
    await read_events(http, run["conversation_id"])
    response = await http.get(f"/api/agents/TravelPlanner/callbacks/{run['conversation_id']}")
    assert response.json() == []


async def test_late_events_of_a_deleted_run_do_not_come_back(slow_http: httpx.AsyncClient) -> None:
    """What a run that goes on says after its events were deleted is not kept; the next run's events are."""
    run = await start_run(slow_http, JOKE, agent="CallbackAgent")
    thread = run["conversation_id"]
    async with open_events(slow_http, thread) as stream:
        await stream.next()

        async def has_events() -> bool:
            return bool(await events_of(slow_http, thread))

        await eventually(has_events, "the trail has begun")
        assert (await slow_http.delete(path(thread))).status_code == 204
        await stream.next()
        await slow_http.delete(f"{AGENT}/run/{thread}")
        await stream.rest()
    assert await events_of(slow_http, thread) == []
    second = await start_run(slow_http, JOKE, agent="CallbackAgent", thread_id=thread)
    await eventually(has_events, "the next run is told of")
    assert {each["correlation_id"] for each in await events_of(slow_http, thread)} == {
        second["correlation_id"]
    }
    await slow_http.delete(f"{AGENT}/run/{thread}")


async def test_a_cancelled_run(slow_http: httpx.AsyncClient) -> None:
    """A cancelled run ends with an error event, and one that was cancelled before it began does too."""
    first = await start_run(slow_http, JOKE, agent="CallbackAgent")
    thread = first["conversation_id"]
    waiting = await start_run(slow_http, "Another", agent="CallbackAgent", thread_id=thread)
    async with open_events(slow_http, thread, {"run": first["correlation_id"]}) as stream:
        await stream.next()
        for run in (waiting, first):
            response = await slow_http.delete(f"{AGENT}/run/{thread}", params={"run": run["correlation_id"]})
            assert response.status_code in (200, 202)
        await stream.rest()
    for run in (waiting, first):
        end = (await events_of(slow_http, thread, run=run["correlation_id"]))[-1]
        assert (end["event_type"], end["code"]) == ("error", "cancelled")


async def test_since_limit_and_run(http: httpx.AsyncClient, thread: str) -> None:
    """A thread can be read in pages by id, from a time on, and by run."""
    first = (await joke(http, thread)).text
    await joke(http, thread, "Hello")
    events = await events_of(http, thread)
    pages, since = [], "0"
    while page := await events_of(http, thread, since=since, limit="7"):
        pages += page
        since = page[-1]["id"]
    assert pages == events
    run = events[0]["correlation_id"]
    of_first = await events_of(http, thread, run=run)
    assert of_first[-1]["response_text"] == first
    assert of_first == [event for event in events if event["correlation_id"] == run]
    middle = of_first[-1]["timestamp"]
    expected = [event for event in events if event["timestamp"] >= middle]
    for form in (middle, middle.replace("Z", "+00:00"), middle.replace("Z", " 00:00"), middle.rstrip("Z")):
        assert await events_of(http, thread, since=form) == expected
    # As it is typed, unencoded.
    response = await http.get(f"{path(thread)}?since={middle.replace('Z', '+00:00')}")
    assert response.json() == expected
    assert await events_of(http, thread, since="", limit="", run="") == events


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("limit", "0", "a whole number from 1 to 5000"),
        ("limit", "5001", "a whole number from 1 to 5000"),
        ("limit", "ten", "a whole number from 1 to 5000"),
        ("limit", "9" * 5_000, "a whole number from 1 to 5000"),
        ("since", "yesterday", "an event's id, or a time such as 2026-11-20T23:01:20Z"),
        ("since", "2026-13-41T00:00:00Z", "an event's id, or a time"),
        ("since", "2026-11-20", "an event's id, or a time"),
        ("run", "a b", "1 to 128 characters"),
    ],
)
async def test_wrong_parameters(
    http: httpx.AsyncClient, thread: str, name: str, value: str, expected: str
) -> None:
    """A parameter that can't be used is a 400 that names it, its value and what is expected."""
    response = await http.get(path(thread), params={name: value})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["error"].startswith(f"{name} is '{value[:20]}")
    assert expected in response.json()["error"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_wrong_addresses(http: httpx.AsyncClient, method: str) -> None:
    """An unknown agent is a 404 that names those there are; an id that can't be used is a 400."""
    response = await http.request(method, "/api/agents/Nobody/callbacks/c")
    assert (response.status_code, response.json()["code"]) == (404, "agent_not_found")
    assert "CallbackAgent" in response.json()["error"]
    response = await http.request(method, path("a%20b"))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


async def test_the_timeline_is_a_page_that_loads_nothing(http: httpx.AsyncClient, thread: str) -> None:
    """The page runs its own script and style, by their digests, and may reach its own service only."""
    response = await http.get(f"{path(thread)}/timeline")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"""(src|href)=|https?:|innerHTML|insertAdjacent|document\.write""", response.text)
    assert thread not in response.text
    assert (await http.get("/api/agents/Nobody/callbacks/c/timeline")).status_code == 404


async def test_trails_in_memory(program: str, tmp_path_factory: pytest.TempPathFactory, thread: str) -> None:
    """With AUDIT_TRAIL_STORE=memory all of it works in one process, and for all agents where * is set."""
    settings = {"AUDIT_TRAIL_STORE": "memory", "AUDIT_TRAIL_AGENTS": "*", "AUDIT_TRAIL_MAX_EVENTS": "4"}
    with running_service(tmp_path_factory.mktemp("memory") / "data", program=program, **settings) as service:
        async with connect_http(service) as client:
            await joke(client, thread)
            events = await events_of(client, thread)
            assert (len(events), events[-1]["event_type"]) == (4, "final")
            await client.delete(path(thread))
            assert await events_of(client, thread) == []
            body = {"message": JOKE, "wait_for_response": True, "thread_id": thread}
            await client.post("/api/agents/TravelPlanner/run", json=body)
            response = await client.get(f"/api/agents/TravelPlanner/callbacks/{thread}")
            assert response.json()[-1]["event_type"] == "final"
