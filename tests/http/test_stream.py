"""The stream route as its clients see it: framing, cursors, endings (protocol: SSE, cursors, terminals)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.identifiers import keys_of
from tests.service import (
    eventually,
    finished_run,
    open_events,
    read_events,
    read_plain,
    start_run,
    stream_path,
    text_of,
)

RUN = "/api/agents/TravelPlanner/run"
SSE = {"accept": "text/event-stream"}
PLAIN = {"accept": "text/plain"}


@pytest.fixture
async def run(http: httpx.AsyncClient) -> dict[str, Any]:
    """A completed run."""
    return await finished_run(http, "Tell me a joke")


@pytest.fixture
async def two_runs(http: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two completed runs of one conversation."""
    first = await finished_run(http, "Tell me a joke")
    return first, await finished_run(http, "Plan a trip to Oslo", conversation_id=first["conversation_id"])


async def test_head_of_server_sent_events(http: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """The head of a stream forbids caching, transforming and buffering, and names the conversation."""
    async with open_events(http, run["conversation_id"]) as stream:
        headers = stream.response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-conversation-id"] == run["conversation_id"]
    assert "content-length" not in headers


async def test_head_of_plain_text(http: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """The head of a stream in plain text says the same, but for the type."""
    response = await http.get(stream_path(run["conversation_id"]), headers=PLAIN)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-conversation-id"] == run["conversation_id"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("text/plain", "text/plain"),
        ("TEXT/PLAIN; q=0.9", "text/plain"),
        ("text/plain, text/event-stream", "text/event-stream"),
    ],
)
async def test_form_by_accept(http: httpx.AsyncClient, run: dict[str, Any], accept: str, kind: str) -> None:
    """Server-sent events are the default; plain text is for who asks for that and not for events."""
    response = await http.get(stream_path(run["conversation_id"]), headers={"accept": accept})
    assert response.headers["content-type"].partition(";")[0] == kind


async def test_framing(http: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """A stream begins with retry; each event has the entry's id; it ends with done and [DONE]."""
    async with open_events(http, run["conversation_id"]) as stream:
        await stream.rest()
        assert stream.received.startswith(b"retry: 1000\n\n")
        blocks = bytes(stream.received).decode().split("\n\n")[1:-1]
    assert len(blocks) > 20
    for block in blocks:
        lines = block.split("\n")
        assert lines[0].startswith("id: ")
        assert lines[1].startswith("event: ")
        assert len(lines) > 2
        assert all(line.startswith("data: ") for line in lines[2:])
    assert blocks[-1].split("\n")[1:] == ["event: done", "data: [DONE]"]
    assert bytes(stream.received).endswith(b"\n\n")


async def test_ids_are_the_entry_ids(http: httpx.AsyncClient, writer: RedisStreamResponseHandler) -> None:
    """An event's id is the entry's own id in Redis, so every reader's cursor means the same."""
    written = [await writer.write_chunk("ids", text, place) for place, text in enumerate("abc")]
    written.append(await writer.write_completion("ids", 3))
    assert [event.id for event in await read_events(http, "ids")] == written


async def test_after_done_nothing_more(http: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """A reconnect with the id of done is answered by 204, which stops an EventSource for good."""
    path = stream_path(run["conversation_id"])
    done = (await read_events(http, run["conversation_id"]))[-1]
    for params, headers in (({}, {"last-event-id": done.id}), ({"cursor": done.id}, {})):
        for form in (SSE, PLAIN):
            response = await http.get(path, params=params, headers={**form, **headers})
            assert (response.status_code, response.content) == (204, b"")


async def test_204_only_at_the_end(http: httpx.AsyncClient, two_runs: tuple[dict[str, Any], ...]) -> None:
    """The id of a done with a later run after it goes on to that run."""
    first, second = two_runs
    conversation = first["conversation_id"]
    done = (await read_events(http, conversation, {"run": first["correlation_id"]}))[-1]
    assert text_of(await read_events(http, conversation, {"cursor": done.id})) == second["response"]
    response = await http.get(
        stream_path(conversation), params={"cursor": done.id, "run": first["correlation_id"]}
    )
    assert response.status_code == 204, "nothing more of that run"


async def test_plain_text_is_the_messages(http: httpx.AsyncClient) -> None:
    """Plain text is the messages' text and nothing else, to the byte."""
    answer = await finished_run(http)
    events = await read_events(http, answer["conversation_id"])
    plain = await read_plain(http, answer["conversation_id"])
    assert len(events) > 300
    assert plain == text_of(events) == answer["response"]


async def test_typed_events_on_request(http: httpx.AsyncClient) -> None:
    """Tool calls, their results, reasoning and usage are given to who asks for all events, in order."""
    answer = await finished_run(http)
    conversation = answer["conversation_id"]
    all_events = await read_events(http, conversation, {"events": "all"})
    kinds = [event.event for event in all_events]
    calls = ["tool_call", "tool_call", "usage", "tool_result", "tool_result", "reasoning", "message"]
    assert kinds[:7] == calls
    assert kinds[-2:] == ["usage", "done"]
    usual = await read_events(http, conversation)
    assert {event.event for event in usual} == {"message", "done"}
    assert usual == [event for event in all_events if event.event in ("message", "done")]


@pytest.mark.parametrize("events", ["some", "ALL", "tool_call", "1"])
async def test_unknown_choice_of_events(http: httpx.AsyncClient, run: dict[str, Any], events: str) -> None:
    """Anything but all is no choice of events: 400, naming the parameter."""
    response = await http.get(stream_path(run["conversation_id"]), params={"events": events})
    assert response.status_code == 400
    assert response.json()["error"].startswith("events is")


async def test_last_event_id_beats_the_cursor(http: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """A browser's reconnect repeats the old query; its Last-Event-ID is where it really stands."""
    events = await read_events(http, run["conversation_id"])
    again = await read_events(
        http, run["conversation_id"], {"cursor": events[2].id}, {"last-event-id": events[9].id}
    )
    assert again == events[10:]


async def test_cursor_zero_is_everything(
    http: httpx.AsyncClient, two_runs: tuple[dict[str, Any], ...]
) -> None:
    """The cursor 0 (or 0-0) gives all that is retained, earlier runs included."""
    first, second = two_runs
    events = await read_events(http, first["conversation_id"], {"cursor": "0"})
    assert text_of(events) == first["response"] + second["response"]
    assert [event.event for event in events].count("done") == 2
    assert await read_events(http, first["conversation_id"], {"cursor": "0-0"}) == events


async def test_no_cursor_is_the_latest_run(
    http: httpx.AsyncClient, two_runs: tuple[dict[str, Any], ...]
) -> None:
    """Without a cursor (an empty one included) a reader is given the latest run from its start."""
    first, second = two_runs
    for params in ({}, {"cursor": ""}):
        events = await read_events(http, first["conversation_id"], params)
        assert text_of(events) == second["response"]


async def test_run_parameter(http: httpx.AsyncClient, two_runs: tuple[dict[str, Any], ...]) -> None:
    """Any run of a conversation can be read by its id, alone and to its end."""
    for each in two_runs:
        events = await read_events(http, each["conversation_id"], {"run": each["correlation_id"]})
        assert text_of(events) == each["response"]
        assert [event.event for event in events].count("done") == 1
        everything = {"run": each["correlation_id"], "cursor": "0"}
        assert await read_events(http, each["conversation_id"], everything) == events


async def test_cursor_dollar_is_what_is_new(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler
) -> None:
    """The cursor $ gives nothing of what is there, and everything that comes."""
    await writer.write_chunk("only-new", "old", 0)
    async with open_events(http, "only-new", {"cursor": "$"}) as stream:
        await writer.write_chunk("only-new", "new", 1)
        await writer.write_completion("only-new", 2)
        assert [event.data for event in await stream.rest()] == ["new", "[DONE]"]


async def test_follow_goes_on_through_later_runs(http: httpx.AsyncClient) -> None:
    """With follow=true one connection carries run after run, each with its done."""
    first = await finished_run(http, "Tell me a joke")
    conversation = first["conversation_id"]
    async with open_events(http, conversation, {"follow": "true"}) as stream:
        events = await stream.up_to("done")
        second = await start_run(http, "Plan a trip to Oslo", conversation_id=conversation)
        events += await stream.up_to("done")
    status = (await http.get(second["links"]["status"])).json()
    assert text_of(events) == first["response"] + status["response"]
    assert [event.event for event in events].count("done") == 2


async def test_reader_of_all_runs_is_told_which_they_are(http: httpx.AsyncClient) -> None:
    """With events=all a read of many runs names each before its events, also after a reconnect; 6.2."""
    first = await finished_run(http, "Tell me a joke")
    conversation = first["conversation_id"]
    second = await finished_run(http, "Hello", conversation_id=conversation)
    everything = {"cursor": "0", "events": "all"}
    events = await read_events(http, conversation, everything)
    told = [json.loads(event.data)["run"] for event in events if event.event == "run"]
    assert told == [first["correlation_id"], second["correlation_id"]]
    assert events[0].event == "run"
    following = {**everything, "follow": "true"}
    async with open_events(http, conversation, following, {"last-event-id": events[-3].id}) as stream:
        assert [(await stream.next()).event, await stream.next()] == ["run", events[-2]]
    assert "run" not in {event.event for event in await read_events(http, conversation, {"cursor": "0"})}


async def test_follow_after_done_waits(http: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """With follow=true the id of done is no end: what comes next is given."""
    done = (await read_events(http, run["conversation_id"]))[-1]
    asked = {"follow": "true", "cursor": done.id}
    async with open_events(http, run["conversation_id"], asked) as stream:
        await start_run(http, "Hello", conversation_id=run["conversation_id"])
        first = await stream.next()
        assert first.data.startswith("Hello")


async def test_stream_before_its_conversation(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler, service_redis: Redis
) -> None:
    """A reader that is a little early waits for its conversation rather than getting a 404."""
    reading = asyncio.create_task(read_events(http, "comes-soon"))

    async def waits() -> bool:
        return [count for _, count in await service_redis.pubsub_numsub(keys_of("comes-soon").channel)] == [1]

    await eventually(waits, "the service waits for the conversation")
    await writer.write_chunk("comes-soon", "here", 0)
    await writer.write_completion("comes-soon", 1)
    assert [event.data for event in await reading] == ["here", "[DONE]"]


async def test_reader_of_a_waiting_run(slow_http: httpx.AsyncClient) -> None:
    """A reader of a run that has not started is connected and waits; it is shown nothing of others."""
    first = await start_run(slow_http)
    conversation = first["conversation_id"]
    async with open_events(slow_http, conversation) as stream:
        # One that is cancelled before it has begun has never been, and the second would be the first.
        await stream.next()
    await start_run(slow_http, "Hello", conversation_id=conversation)
    async with open_events(slow_http, conversation) as stream:
        await slow_http.delete(f"{RUN}/{conversation}", params={"run": first["correlation_id"]})
        event = await stream.next()
    assert event.data.startswith("Happy")
    await slow_http.delete(f"{RUN}/{conversation}")


async def test_failed_run_ends_with_an_error(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler, service_redis: Redis
) -> None:
    """A failed run ends with an error event that has a code and a message, and then with 204."""
    await writer.write_chunk("failing", "so far", 0)
    last = await service_redis.xadd(
        "agent-stream:failing", {"text": "", "error": "The model\nis gone", "code": "model_gone"}
    )
    events = await read_events(http, "failing")
    assert [event.event for event in events] == ["message", "error"]
    assert events[1].data == '{"code":"model_gone","message":"The model\\nis gone"}'
    assert events[1].id.encode() == last
    assert "The model\nis gone" in await read_plain(http, "failing")
    assert (await http.get(stream_path("failing"), params={"cursor": events[1].id})).status_code == 204
