"""Stopping runs over HTTP (protocol: terminals; cancelled)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from streaming.sse import ServerSentEvent
from tests.service import eventually, finished_run, open_events, read_events, read_plain, start_run, text_of

RUN = "/api/agents/TravelPlanner/run"


async def first_text(stream_of: httpx.AsyncClient, run: dict[str, Any]) -> None:
    """Wait until a run is in the middle of its answer."""
    async with open_events(stream_of, run["conversation_id"], {"run": run["correlation_id"]}) as stream:
        await stream.next()


async def cancelled_run(http: httpx.AsyncClient) -> tuple[dict[str, Any], list[ServerSentEvent]]:
    """A run that was stopped in the middle of its answer, and what its reader was given."""
    run = await start_run(http)
    async with open_events(http, run["conversation_id"]) as stream:
        first = await stream.next()
        response = await http.delete(f"{RUN}/{run['conversation_id']}")
        assert response.status_code == 202, response.text
        assert response.json()["correlation_id"] == run["correlation_id"]
        return run, [first, *await stream.rest()]


async def test_cancel_ends_the_readers_stream(slow_http: httpx.AsyncClient) -> None:
    """The reader of a run that is cancelled gets done, soon, and nothing after it."""
    _, events = await cancelled_run(slow_http)
    assert [event.event for event in events].count("done") == 1
    assert (events[-1].event, events[-1].data) == ("done", "[DONE]")
    assert events[-1].id


async def test_reader_is_told_that_it_was_cancelled(slow_http: httpx.AsyncClient) -> None:
    """Section 6.2: the ``done`` of a cancelled run comes after ``cancelled``, which moves no cursor."""
    _, events = await cancelled_run(slow_http)
    *texts, cancelled, done = events
    assert (cancelled.event, done.event) == ("cancelled", "done")
    assert cancelled.id == texts[-1].id
    assert not cancelled.has_own_id


async def test_completed_run_was_not_cancelled(http: httpx.AsyncClient) -> None:
    """The ``done`` of a run that was completed comes without ``cancelled``."""
    run = await finished_run(http, "Tell me a joke")
    events = await read_events(http, run["conversation_id"])
    assert {event.event for event in events} == {"message", "done"}


async def test_cancelled_run_says_so(slow_http: httpx.AsyncClient) -> None:
    """A cancelled run's status is Canceled, with the part of the answer that it gave."""
    run, events = await cancelled_run(slow_http)
    report = (await slow_http.get(run["links"]["status"])).json()
    assert report["status"] == "Canceled"
    assert report["response"] == text_of(events)
    assert report["ended_at"] >= report["started_at"]


async def test_partial_answer_stays_readable(slow_http: httpx.AsyncClient) -> None:
    """What a cancelled run gave is read again as it was first read."""
    run, events = await cancelled_run(slow_http)
    assert await read_events(slow_http, run["conversation_id"]) == events
    assert await read_plain(slow_http, run["conversation_id"]) == text_of(events)
    assert 0 < len(text_of(events)) < 1_000


async def test_next_turn_after_a_cancel(slow_http: httpx.AsyncClient) -> None:
    """After a cancel the conversation goes on: the next turn runs and is the one that is shown."""
    run, events = await cancelled_run(slow_http)
    conversation = run["conversation_id"]
    trip = await start_run(slow_http, "Plan a 2-day trip to Oslo", conversation_id=conversation)
    async with open_events(slow_http, conversation) as stream:
        shown = await stream.next()
        assert shown.id > events[-1].id
        report = (await slow_http.get(trip["links"]["status"])).json()
        assert report["status"] == "Running"
    await slow_http.delete(f"{RUN}/{conversation}")


async def test_cancel_twice(slow_http: httpx.AsyncClient) -> None:
    """Cancelling a run that has been cancelled changes nothing and tells where it stands."""
    run, events = await cancelled_run(slow_http)
    again = await slow_http.delete(f"{RUN}/{run['conversation_id']}")
    assert (again.status_code, again.json()["status"]) == (200, "Canceled")
    assert await read_events(slow_http, run["conversation_id"]) == events


async def test_cancel_twice_in_a_row(slow_http: httpx.AsyncClient) -> None:
    """A second cancel on the heels of the first leaves one terminal."""
    run = await start_run(slow_http)
    await first_text(slow_http, run)
    for _ in range(2):
        assert (await slow_http.delete(f"{RUN}/{run['conversation_id']}")).status_code in (200, 202)
    events = await read_events(slow_http, run["conversation_id"], {"cursor": "0"})
    assert [event.event for event in events if event.event != "message"] == ["cancelled", "done"]


async def test_cancel_of_a_completed_run(http: httpx.AsyncClient) -> None:
    """A run that has completed stays completed, however late its cancel."""
    run = await finished_run(http)
    response = await http.delete(f"{RUN}/{run['conversation_id']}")
    assert (response.status_code, response.json()["status"]) == (200, "Completed")
    assert await read_plain(http, run["conversation_id"]) == run["response"]


async def test_cancel_of_a_waiting_run(slow_http: httpx.AsyncClient) -> None:
    """A run that waits for its turn is cancelled at once and never executed; the earlier one goes on."""
    first = await start_run(slow_http)
    await first_text(slow_http, first)
    conversation = first["conversation_id"]
    second = await start_run(slow_http, conversation_id=conversation)
    response = await slow_http.delete(f"{RUN}/{conversation}", params={"run": second["correlation_id"]})
    assert (response.status_code, response.json()["status"]) == (200, "Canceled")
    events = await read_events(slow_http, conversation, {"run": second["correlation_id"]})
    assert [event.event for event in events] == ["cancelled", "done"]
    assert (await slow_http.get(first["links"]["status"])).json()["status"] == "Running"
    await slow_http.delete(f"{RUN}/{conversation}", params={"run": first["correlation_id"]})
    await read_events(slow_http, conversation, {"run": first["correlation_id"]})
    third = await start_run(slow_http, "Tell me a joke", conversation_id=conversation)
    await first_text(slow_http, third)
    report = (await slow_http.get(second["links"]["status"])).json()
    assert (report["status"], report["attempt"]) == ("Canceled", 0)


async def test_waiting_client_hears_of_the_cancel(slow_http: httpx.AsyncClient) -> None:
    """Who waits for the answer of a run that is cancelled gets 409 with the part there is, never a 200."""
    conversation = "waits-for-what-is-cancelled"

    async def is_running() -> bool:
        report = await slow_http.get(f"{RUN}/{conversation}")
        return report.status_code == 200 and report.json()["status"] == "Running"

    body = {"message": "Plan a trip to Rome", "conversation_id": conversation, "wait_for_response": True}
    waiting = asyncio.create_task(slow_http.post(RUN, json=body))
    await eventually(is_running, "the run is in progress")
    assert (await slow_http.delete(f"{RUN}/{conversation}")).status_code == 202
    response = await waiting
    assert response.status_code == 409
    assert (response.json()["status"], response.json()["code"]) == ("Canceled", "cancelled")


async def test_reader_that_leaves_stops_nothing(slow_http: httpx.AsyncClient) -> None:
    """A run goes on when its only reader leaves, and is there for the next one."""
    run = await start_run(slow_http)
    async with open_events(slow_http, run["conversation_id"]) as stream:
        left_at = await stream.next()
    async with open_events(slow_http, run["conversation_id"], {"cursor": left_at.id}) as stream:
        later = await stream.next()
        assert later.event == "message"
    await slow_http.delete(f"{RUN}/{run['conversation_id']}")
