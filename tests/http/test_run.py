"""The run route and the status of runs, asked of a real service (protocol: HTTP)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.service import (
    TRIP,
    finished_run,
    open_events,
    read_events,
    read_plain,
    start_run,
    stream_path,
    text_of,
)

RUN = "/api/agents/TravelPlanner/run"
CHAT = "/api/agents/CallbackAgent/run"
TEXT = {"content-type": "text/plain"}
ACCEPTED_KEYS = {
    *("status", "response", "message", "conversation_id", "session_id", "thread_id"),
    *("correlation_id", "links"),
}


async def answer_of(http: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """The whole answer of a finished run, as the status route tells it."""
    status = await http.get(body["links"]["status"])
    return str(status.json()["response"])


async def test_text_is_accepted(http: httpx.AsyncClient) -> None:
    """A text/plain body is the message; a travel plan is accepted with 202 and every id of the contract."""
    response = await http.post(RUN, content=TRIP, headers=TEXT)
    assert response.status_code == 202
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == ACCEPTED_KEYS
    assert (body["status"], body["response"]) == ("accepted", "Agent request accepted")
    assert body["message"] == TRIP
    assert body["conversation_id"] == body["session_id"] == body["thread_id"]
    assert body["correlation_id"]
    assert body["correlation_id"] != body["conversation_id"]
    assert response.headers["x-conversation-id"] == body["conversation_id"]


async def test_links_lead_to_stream_and_status(http: httpx.AsyncClient) -> None:
    """The links of an accepted run are its stream and its status."""
    body = await start_run(http)
    assert set(body["links"]) == {"stream", "status"}
    assert body["links"]["stream"] == stream_path(body["conversation_id"])
    stream = await http.get(body["links"]["stream"], headers={"accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    status = await http.get(body["links"]["status"])
    assert status.json()["correlation_id"] == body["correlation_id"]


async def test_without_a_content_type_the_body_is_the_message(http: httpx.AsyncClient) -> None:
    """A body of no declared type, or of curl's default type, is the message as it stands."""
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        response = await http.post(RUN, content="Plan a trip to Oslo", headers=headers)
        assert response.status_code == 202
        assert response.json()["message"] == "Plan a trip to Oslo"


async def test_message_keeps_every_character(http: httpx.AsyncClient) -> None:
    """A message comes back as it was sent: emoji, quotes, newlines, controls."""
    message = 'Plan a trip to Tōkyō 🗼\n"quoted"\t\\ \u2028 \x00 end '
    assert (await start_run(http, message))["message"] == message
    response = await http.post(RUN, content=message.encode(), headers=TEXT)
    assert response.json()["message"] == message


@pytest.mark.parametrize(
    ("path", "waits"), [(RUN, False), (CHAT, True)], ids=["TravelPlanner", "CallbackAgent"]
)
async def test_waiting_is_the_agents_own_default(http: httpx.AsyncClient, path: str, waits: bool) -> None:
    """Without a word from the client, TravelPlanner is followed and CallbackAgent is waited for."""
    response = await http.post(path, json={"message": "Tell me a joke"})
    assert response.status_code == (200 if waits else 202)


@pytest.mark.parametrize(
    ("header", "query", "body", "waits"),
    [
        ("true", "false", False, True),
        ("false", "true", True, False),
        (None, "true", False, True),
        (None, "false", True, False),
        (None, None, True, True),
        (None, None, False, False),
        ("1", None, None, True),
        ("no", None, True, False),
    ],
)
async def test_who_says_whether_to_wait(
    http: httpx.AsyncClient, header: str | None, query: str | None, body: bool | None, waits: bool
) -> None:
    """The header x-ms-wait-for-response counts before the query, and the query before the body."""
    for path in (RUN, CHAT):
        response = await http.post(
            path,
            json={"message": "Tell me a joke"} | ({} if body is None else {"wait_for_response": body}),
            params={} if query is None else {"wait_for_response": query},
            headers={} if header is None else {"x-ms-wait-for-response": header},
        )
        assert response.status_code == (200 if waits else 202), path


async def test_waiting_gives_the_answer(http: httpx.AsyncClient) -> None:
    """Waiting with JSON gives 200, the ids and exactly the text that the stream holds."""
    body = await finished_run(http)
    assert set(body) == ACCEPTED_KEYS
    assert body["status"] == "success"
    assert body["response"].startswith("# 🗼 3 days in Tokyo\n")
    assert body["response"] == await read_plain(http, body["conversation_id"])


async def test_waiting_with_text_gives_bare_text(http: httpx.AsyncClient) -> None:
    """A text message that is waited for is answered in text; the conversation is in a header."""
    response = await http.post(CHAT, content="Tell me a joke", headers=TEXT)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == await read_plain(http, response.headers["x-conversation-id"])


async def test_waiting_with_text_gives_json_to_who_accepts_it(http: httpx.AsyncClient) -> None:
    """A text message whose sender accepts JSON is answered in JSON."""
    response = await http.post(CHAT, content="Hi", headers={**TEXT, "accept": "application/json"})
    assert set(response.json()) == ACCEPTED_KEYS


async def test_second_turn(http: httpx.AsyncClient) -> None:
    """A second turn builds on the first, and a reader without a cursor is shown the second answer only."""
    first = await finished_run(http)
    conversation = first["conversation_id"]
    second = await finished_run(http, "include neighbouring countries as well", conversation_id=conversation)
    assert second["conversation_id"] == conversation
    assert second["correlation_id"] != first["correlation_id"]
    assert "Tokyo" in second["response"], "what the first turn was about"
    assert "Seoul" in second["response"], "what the second turn added"
    assert text_of(await read_events(http, conversation)) == second["response"]
    both = text_of(await read_events(http, conversation, {"cursor": "0", "follow": "false"}))
    assert both == first["response"] + second["response"]


async def test_second_turn_waits_for_the_first(http: httpx.AsyncClient) -> None:
    """Turns sent at once run one after the other, each with its own answer under its own id."""
    first = await start_run(http)
    second = await start_run(
        http, "include neighbouring countries as well", conversation_id=first["conversation_id"]
    )
    conversation = first["conversation_id"]
    shown = text_of(await read_events(http, conversation))
    assert "Seoul" in shown, "without a cursor: the latest run"
    assert shown == await read_plain(http, conversation, {"run": second["correlation_id"]})
    assert shown == await answer_of(http, second)
    earlier = await read_plain(http, conversation, {"run": first["correlation_id"]})
    assert "Seoul" not in earlier
    assert earlier == await answer_of(http, first)


async def test_conversations_do_not_share_memory(http: httpx.AsyncClient) -> None:
    """What one conversation was about is unknown to another."""
    await finished_run(http, "Plan a trip to Oslo")
    other = await finished_run(http, "make it 5 days")
    assert "Oslo" not in other["response"]


async def test_status_of_a_running_run(slow_http: httpx.AsyncClient) -> None:
    """A run in progress is Running, with its times and counts and without an answer."""
    body = await start_run(slow_http)
    async with open_events(slow_http, body["conversation_id"]) as stream:
        await stream.next()
        report = (await slow_http.get(body["links"]["status"])).json()
    assert report["status"] == "Running"
    assert report["agent"] == "TravelPlanner"
    assert report["attempt"] == 1
    assert report["entries"] >= 1
    assert report["created_at"] <= report["started_at"]
    assert report["ended_at"] is None
    assert "response" not in report


async def test_status_of_a_waiting_run(slow_http: httpx.AsyncClient) -> None:
    """A run that waits for the conversation's earlier turn is Pending."""
    first = await start_run(slow_http)
    second = await start_run(slow_http, conversation_id=first["conversation_id"])
    async with open_events(slow_http, first["conversation_id"], {"run": first["correlation_id"]}) as stream:
        await stream.next()
        report = (await slow_http.get(f"{RUN}/{first['conversation_id']}")).json()
    assert (report["status"], report["correlation_id"]) == ("Pending", second["correlation_id"])
    assert report["started_at"] is None


async def test_status_of_a_completed_run(http: httpx.AsyncClient) -> None:
    """A completed run's status has its whole answer, and counts every entry of the stream."""
    body = await finished_run(http)
    report = (await http.get(f"{RUN}/{body['conversation_id']}")).json()
    assert report["status"] == "Completed"
    assert report["response"] == body["response"]
    assert report["created_at"] <= report["started_at"] <= report["ended_at"]
    assert report["entries"] == len(await read_events(http, body["conversation_id"], {"events": "all"}))
    ids = ("conversation_id", "session_id", "thread_id", "correlation_id")
    assert [report[name] for name in ids] == [body[name] for name in ids]


async def test_status_by_run(http: httpx.AsyncClient) -> None:
    """The status is that of the latest run, or of the one that is asked for."""
    first = await finished_run(http)
    second = await finished_run(http, "make it 5 days", conversation_id=first["conversation_id"])
    latest = await http.get(f"{RUN}/{first['conversation_id']}")
    assert latest.json()["correlation_id"] == second["correlation_id"]
    earlier = await http.get(f"{RUN}/{first['conversation_id']}", params={"run": first["correlation_id"]})
    assert earlier.json()["correlation_id"] == first["correlation_id"]
    assert earlier.json()["response"] == first["response"]


async def test_health(http: httpx.AsyncClient) -> None:
    """Health names the agents and says how Redis and the task hub are."""
    response = await http.get("/api/health")
    assert response.status_code == 200
    report = response.json()
    assert report["status"] == "healthy"
    assert {agent["name"] for agent in report["agents"]} == {"TravelPlanner", "CallbackAgent"}
    assert report["agent_count"] == 2
    assert (report["redis"], report["task_hub"]) == ("ok", "ok")


async def test_key_that_is_no_stream(http: httpx.AsyncClient, service_redis: Redis) -> None:
    """A conversation whose key holds something else is refused by every route, for good: 5.7."""
    await service_redis.set("agent-stream:taken", "something else", ex=60)
    body = {"message": "hi", "conversation_id": "taken"}
    answers = [
        await http.post("/api/agents/TravelPlanner/run", json=body),
        await http.get("/api/agent/stream/taken"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (409, "not_a_stream")
