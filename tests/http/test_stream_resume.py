"""Resuming over HTTP: from every cursor, nothing lost and nothing twice (protocol: cursors)."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.sse import ServerSentEvent, ServerSentEventDecoder
from tests.http.conftest import STANDALONE
from tests.service import (
    PATIENCE,
    Service,
    finished_run,
    open_events,
    read_events,
    read_plain,
    start_run,
    stream_path,
    text_of,
)

#: What of the inside must never be seen outside.
INTERNALS = ("Traceback", "redis", "Redis", "ResponseError", ".py", "WRONGTYPE")
#: Beyond the newest entry of any stream, and beyond what Redis can count.
FUTURE = ("9999999999999-0", "18446744073709551615-18446744073709551615", "9999999999999")
MALFORMED = (
    *("18446744073709551616-0", "1-18446744073709551616", "9" * 40, "9" * 10_000),
    *("-1", "-1-0", "1-", "-", "1-1-1", "1.5", "1e3", "0x10", "+", "*", "(1-0", "$0", "$$", " 1-0", "1-0 "),
    *(
        "abc",
        "1-a",
        "{}",
        "@",
        "../",
        "\x00",
        "1-0\x00",
        "1-0\n",
        "1-0\r\nevent: x",
        "\u0661-\u0660",
        "\uff11-\uff10",
        "🗼",
    ),
    *("null", "None", "true", "[]", "' OR 1", "1-0;DROP", "%00", "%2e"),
)
HOSTILE_IDS = (
    *("x" * 129, "x" * 20_000, "🗼", "%F0%9F%97%BC", "%00", "a%00b", "a%0Ab", "%0D%0Ax-forged:%201"),
    *("{}", "{a}", "a@b", "@", "*", "%3F", "a:b", "%7Ba%7D", "a%20b", "%FF", "%ED%A0%80", "a;b", "a,b"),
    *("..%2F..%2Fetc%2Fpasswd", "../..", "%2e%2e/%2e%2e", "a/b", "a%2Fb", "a\\b", "__proto__/x", "$", "~"),
)


@pytest.fixture
def stride(program: str) -> int:
    """From one cursor to the next: what serves them is the same on both hosts, and one of them is slow."""
    return 1 if program == STANDALONE else 10


async def test_resume_at_every_cursor(http: httpx.AsyncClient, stride: int) -> None:
    """Cut anywhere and resumed by cursor, a recorded run is the whole, byte for byte."""
    conversation = (await finished_run(http))["conversation_id"]
    whole = await read_events(http, conversation)
    assert len(whole) > 300
    assert all(event.id for event in whole)
    for cut in range(1, len(whole), stride):
        event = whole[cut - 1]
        rest = await read_events(http, conversation, {"cursor": event.id})
        assert whole[:cut] + rest == whole, f"resumed at {event.id}"


async def test_resume_at_every_cursor_of_all_events(http: httpx.AsyncClient, stride: int) -> None:
    """The same holds with typed events, and with Last-Event-ID as a browser sends it."""
    conversation = (await finished_run(http))["conversation_id"]
    whole = await read_events(http, conversation, {"events": "all"})
    for cut in range(1, len(whole), stride):
        event = whole[cut - 1]
        asked = {"cursor": "0", "events": "all"}
        rest = await read_events(http, conversation, asked, {"last-event-id": event.id})
        assert whole[:cut] + rest == whole, f"resumed at {event.id}"


async def test_resume_at_every_cursor_in_plain_text(http: httpx.AsyncClient, stride: int) -> None:
    """In plain text too: what was shown up to a cursor and what comes after it are the whole."""
    conversation = (await finished_run(http))["conversation_id"]
    whole = await read_plain(http, conversation)
    events = await read_events(http, conversation, {"events": "all"})
    for cut in range(1, len(events), stride):
        event = events[cut - 1]
        shown = text_of(events[:cut])
        rest = await read_plain(http, conversation, {"cursor": event.id})
        assert shown + rest == whole, f"resumed at {event.id}"


async def test_resume_in_the_middle_of_two_runs(http: httpx.AsyncClient) -> None:
    """A cursor in an earlier run reads that run to its end; its done leads on to the next run."""
    first = await finished_run(http, "Tell me a joke")
    conversation = first["conversation_id"]
    await finished_run(http, "Plan a trip to Oslo", conversation_id=conversation)
    whole = await read_events(http, conversation, {"cursor": "0"})
    for cut, event in enumerate(whole[:-1], start=1):
        shown, last = whole[:cut], event
        while last != whole[-1]:
            rest = await read_events(http, conversation, {"cursor": last.id})
            shown, last = shown + rest, rest[-1]
        assert shown == whole, f"resumed at {event.id}"


async def test_resume_while_the_run_goes_on(slow_http: httpx.AsyncClient) -> None:
    """A reader that is cut after every single event, live, is given each event once and in order."""
    run = await start_run(slow_http)
    conversation = run["conversation_id"]
    seen: list[ServerSentEvent] = []
    params: dict[str, str] = {}
    for _ in range(6):
        async with open_events(slow_http, conversation, params) as stream:
            event = await stream.next()
        seen.append(event)
        params = {"cursor": event.id}
    await slow_http.delete(f"/api/agents/TravelPlanner/run/{conversation}")
    rest = await read_events(slow_http, conversation, params)
    whole = await read_events(slow_http, conversation)
    # What says that the run was cancelled is no entry: it has the id of the event before it, if one came.
    assert [event for event in seen + rest if event.event != "cancelled"] == [
        event for event in whole if event.event != "cancelled"
    ]


def test_cut_in_the_middle_of_the_bytes(service: Service) -> None:
    """Cut at any byte, what was completely received and what comes after its last id are the whole."""
    with httpx.Client(base_url=service.url, timeout=PATIENCE, trust_env=False) as http:
        message = {"message": "Tell me a joke", "wait_for_response": True}
        conversation = http.post("/api/agents/CallbackAgent/run", json=message).json()["conversation_id"]
        whole = http.get(stream_path(conversation)).content
        events = ServerSentEventDecoder().feed(whole)
        # The run has ended: what comes after a cursor stays what it is.
        rests: dict[str, bytes] = {}
        for cut in range(len(whole)):
            received = ServerSentEventDecoder()
            seen = received.feed(whole[:cut])
            # A real client remembers the id of the last event that it was given, not of half an event.
            cursor = seen[-1].id if seen else ""
            if cursor not in rests:
                headers = {"last-event-id": cursor} if cursor else {}
                rests[cursor] = http.get(stream_path(conversation), headers=headers).content
            assert seen + ServerSentEventDecoder().feed(rests[cursor]) == events, f"cut at byte {cut}"


async def test_milliseconds_alone_are_a_cursor(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler
) -> None:
    """A cursor of milliseconds alone means counter 0, and one between entries reads what is after it."""
    first = await writer.write_chunk("millis", "a", 0)
    await writer.write_chunk("millis", "b", 1)
    await writer.write_completion("millis", 2)
    milliseconds = int(first.partition("-")[0])
    for cursor in (str(milliseconds - 1), f"{milliseconds - 1}-7", "1", "0-1"):
        assert text_of(await read_events(http, "millis", {"cursor": cursor})).endswith("ab"), cursor
    assert text_of(await read_events(http, "millis", {"cursor": first})) == "b"


@pytest.fixture
async def conversation(http: httpx.AsyncClient) -> str:
    """A conversation with a completed run."""
    run: dict[str, Any] = await finished_run(http, "Tell me a joke")
    return str(run["conversation_id"])


@pytest.mark.parametrize("cursor", FUTURE)
async def test_cursor_of_the_future(http: httpx.AsyncClient, conversation: str, cursor: str) -> None:
    """A cursor that this stream can't have given out is refused at once rather than waited for."""
    response = await http.get(stream_path(conversation), params={"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("cursor", MALFORMED, ids=lambda cursor: repr(cursor[:24]))
async def test_malformed_cursor(http: httpx.AsyncClient, conversation: str, cursor: str) -> None:
    """What is no cursor is refused with a sentence, never by an error of Redis."""
    response = await http.get(stream_path(conversation), params={"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor")
    error = response.json()["error"]
    assert error.startswith("cursor is ")
    assert "an entry id such as" in error
    assert not any(word in error for word in INTERNALS)
    assert len(error) < 300


async def test_malformed_last_event_id(http: httpx.AsyncClient, conversation: str) -> None:
    """A Last-Event-ID is checked as a cursor is."""
    response = await http.get(stream_path(conversation), headers={"last-event-id": "abc"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=lambda value: repr(value[:24]))
def test_hostile_conversation_id(service: Service, hostile: str) -> None:
    """No conversation id, however crafted, gets more than 400 or 404 and a sentence."""
    for path in (f"/api/agent/stream/{hostile}", f"/api/agents/TravelPlanner/run/{hostile}"):
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with socket.create_connection(service.address, timeout=PATIENCE) as client:
            client.sendall(request.encode("utf-8", "surrogatepass"))
            answer = b"".join(iter(lambda: client.recv(65_536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.split(" ")[1] in ("400", "404"), answer
        assert "x-forged" not in head
        assert not any(word in body for word in INTERNALS)
        assert len(body) < 400


@pytest.mark.parametrize("run", ["x" * 129, "🗼", "\x00", "../", "{}", "a@b", "*", "a b", "a\n"])
async def test_hostile_run_id(http: httpx.AsyncClient, conversation: str, run: str) -> None:
    """A run id is checked as a conversation id is."""
    for path in (stream_path(conversation), f"/api/agents/TravelPlanner/run/{conversation}"):
        response = await http.get(path, params={"run": run})
        assert response.status_code == 400
        assert response.json()["error"].startswith("run is ")


def test_hostile_requests_are_no_surprise(service: Service) -> None:
    """Every refusal was meant: the service met no error that it did not expect."""
    assert "Traceback" not in service.log
    assert "request failed" not in service.log
