"""The Python client and a real service: how runs end, lines that are cut, killed services."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from clients import (
    AccessDenied,
    AgentNotFound,
    AnswerText,
    ConversationNotFound,
    Done,
    EndStatus,
    InvalidCursor,
    InvalidRequest,
    NotFound,
    Patience,
    RunFailed,
    RunInterrupted,
    StreamClient,
    StreamEvent,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from soak.cutting_proxy import cutting_proxy
from streaming.cancellation import cancel_and_wait
from tests.clients.replay_server import HURRY
from tests.faulty_service import AGENT as FAULTY
from tests.service import TRIP, Service, free_port, running_service

AGENT: Final = "TravelPlanner"
#: No wait of a test takes so long; the service's own limits come first.
STEADY: Final = replace(HURRY, longest_delay=timedelta(milliseconds=50), give_up_after=timedelta(seconds=20))
KEY: Final = "key-of-sixteen-characters"


@pytest.fixture
async def client(service: Service) -> AsyncIterator[StreamClient]:
    """A client of ``service``."""
    async with StreamClient(service.url, patience=STEADY) as made:
        yield made


@pytest.fixture
async def slow_client(slow_service: Service) -> AsyncIterator[StreamClient]:
    """A client of ``slow_service``."""
    async with StreamClient(slow_service.url, patience=STEADY) as made:
        yield made


async def test_a_run_and_its_second_turn(client: StreamClient) -> None:
    """A run that is waited for has the text that its status has; a second turn goes into the conversation."""
    first = await client.run(AGENT, TRIP, wait=True)
    report = await client.status(AGENT, first.conversation_id, run=first.run)
    assert first.answer is not None
    assert (report.status, report.response) == ("Completed", first.answer.text)
    assert report.has_ended
    assert report.started_at is not None
    assert report.ended_at is not None
    assert report.ended_at > report.started_at
    second = await client.run(AGENT, "include neighbouring countries", conversation_id=first.conversation_id)
    assert second.conversation_id == first.conversation_id
    text = await client.text(second.conversation_id)
    assert text == (await client.status(AGENT, first.conversation_id)).response
    assert text != first.answer.text
    assert await client.text(first.conversation_id, run=first.run) == first.answer.text


async def test_typed_events(client: StreamClient) -> None:
    """With all events, tool calls, results and token counts come as what they are; without, none does."""
    run = await client.run(AGENT, TRIP, wait=True)
    events = [event async for event in client.stream(run.conversation_id, all_events=True)]
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert {call.name for call in calls} == {"get_weather_forecast", "get_local_events"}
    assert json.loads(calls[0].arguments)["destination"] == "Tokyo"
    results = [event for event in events if isinstance(event, ToolResult)]
    assert {result.call_id for result in results} == {call.call_id for call in calls}
    assert any(isinstance(event, Usage) and event.counts["total_token_count"] > 0 for event in events)
    assert isinstance(events[-1], Done)
    bare = [event async for event in client.stream(run.conversation_id)]
    assert {type(event) for event in bare} == {Text, Done}


async def test_resume_from_every_cursor(client: StreamClient) -> None:
    """From any event's cursor the rest comes, and after the last one nothing."""
    run = await client.run(AGENT, "Tell me a joke", wait=True)
    events = [event async for event in client.stream(run.conversation_id)]
    for place, event in enumerate(events):
        rest = [later async for later in client.stream(run.conversation_id, cursor=event.cursor)]
        assert rest == events[place + 1 :]


async def test_all_turns_and_what_follows(client: StreamClient) -> None:
    """From 0 both turns come; who follows is given the next turn too, without asking again."""
    run = await client.run(AGENT, "Tell me a joke", wait=True)
    await client.run(AGENT, "Another joke", conversation_id=run.conversation_id, wait=True)
    kinds = [event.kind async for event in client.stream(run.conversation_id, cursor="0")]
    assert kinds.count("done") == 2
    seen: list[StreamEvent] = []
    async with aclosing(client.stream(run.conversation_id, follow=True)) as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, Done) and kinds.count("done") == 2:
                kinds.append("done")
                await client.run(AGENT, "A third joke", conversation_id=run.conversation_id)
            elif isinstance(event, Done):
                break
    assert [event.kind for event in seen].count("done") == 2


async def test_cancel(slow_client: StreamClient) -> None:
    """A run that is cancelled ends as such for its reader, with what it had said."""
    run = await slow_client.run(AGENT, TRIP)
    collected, last = AnswerText(), None
    async for event in slow_client.stream(run.conversation_id):
        if last is None:
            assert (await slow_client.cancel(AGENT, run.conversation_id, run=run.run)).status == "Canceling"
        collected.take(event)
        last = event
    assert isinstance(last, Done)
    assert last.status is EndStatus.CANCELLED
    report = await slow_client.status(AGENT, run.conversation_id)
    assert (report.status, report.response) == ("Canceled", collected.text)
    answer = await slow_client.answer(run.conversation_id)
    assert (answer.text, answer.status) == (collected.text, EndStatus.CANCELLED)


async def test_what_is_not_there(client: StreamClient) -> None:
    """What the service does not know or take is told at once, as what it is."""
    run = await client.run(AGENT, "Tell me a joke", wait=True)
    for kind, ask in (
        (ConversationNotFound, client.text("nobody")),
        (NotFound, client.text(run.conversation_id, run="nobody")),
        (NotFound, client.status(AGENT, "nobody")),
        (AgentNotFound, client.run("Nobody", "Hello")),
        (AgentNotFound, client.cancel("No body?x=1", run.conversation_id)),
        (InvalidRequest, client.run(AGENT, " ")),
        (InvalidRequest, client.text("no id")),
    ):
        with pytest.raises(kind):
            await ask
    with pytest.raises(InvalidCursor):
        await anext(client.stream(run.conversation_id, cursor="yesterday"))


async def test_leaving_a_stream_closes_it(slow_client: StreamClient) -> None:
    """A reader that is cancelled in the middle leaves no task and no connection; the run goes on."""
    run = await slow_client.run(AGENT, TRIP)
    tasks = asyncio.all_tasks()
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in slow_client.stream(run.conversation_id):
            begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    await cancel_and_wait([reading])
    assert asyncio.all_tasks() == tasks
    pool: Any = slow_client._link.http._transport
    assert pool._pool.connections == []
    assert (await slow_client.status(AGENT, run.conversation_id)).status == "Running"
    await slow_client.cancel(AGENT, run.conversation_id)


async def test_runs_that_fail(tmp_path: Path) -> None:
    """A failed agent is raised with its code and what it had said."""
    with running_service(tmp_path / "data", program="tests.faulty_service") as service:
        async with StreamClient(service.url, patience=STEADY) as client:
            with pytest.raises(RunFailed) as caught:
                await client.run(FAULTY, json.dumps([{"say": "Half"}, {"raise": "no"}]), wait=True)
    assert (caught.value.code, caught.value.text) == ("agent_failed", "Half")


async def test_keys_and_tokens(tmp_path: Path) -> None:
    """A key opens all; the token that came with a run opens its conversation; others open nothing."""
    settings = {"API_KEYS": KEY, "STREAM_TOKEN_SECRETS": "x" * 32}
    with running_service(tmp_path / "data", **settings) as service:
        async with StreamClient(service.url, api_key=KEY, patience=STEADY) as backend:
            run = await backend.run(AGENT, "Tell me a joke", wait=True)
            assert run.answer is not None
            token = backend._link._started[run.conversation_id].token
            # The token alone would do.
            backend._link._api_key = None
            assert await backend.text(run.conversation_id) == run.answer.text
        async with StreamClient(service.url, stream_token=token, patience=STEADY) as page:
            assert await page.text(run.conversation_id) == run.answer.text
            with pytest.raises(AccessDenied):
                await page.text("another")
        async with StreamClient(service.url, api_key="wrong", patience=STEADY) as stranger:
            for ask in (stranger.text(run.conversation_id), stranger.run(AGENT, "Hello")):
                with pytest.raises(AccessDenied):
                    await ask


async def test_live_answers_over_a_line_that_is_cut(tmp_path: Path) -> None:
    """Readers of a live run whose every connection is cut at random all get exactly the answer."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="200") as service:
        async with (
            cutting_proxy(service.address) as proxy,
            StreamClient(proxy.url, patience=STEADY) as client,
            StreamClient(service.url, patience=STEADY) as direct,
        ):
            chance = random.Random(7)
            proxy.budget = lambda: chance.randint(0, 3_000)
            run = await direct.run(AGENT, "Plan a 1-day trip to Oslo")
            texts = await asyncio.gather(*(client.text(run.conversation_id, run=run.run) for _ in range(10)))
            report = await client.status(AGENT, run.conversation_id)
    assert report.status == "Completed"
    assert set(texts) == {report.response}
    assert proxy.cuts > 20


async def test_a_service_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """A reader outlives its service: a finished run's text is exact, one that was going on is interrupted."""
    settings = {"PORT": str(free_port()), "DEMO_MODEL_WORDS_PER_SECOND": "50"}
    patience = Patience(first_delay=timedelta(milliseconds=100), longest_delay=timedelta(milliseconds=300))
    collected, rest = AnswerText(), list[StreamEvent]()
    with running_service(tmp_path / "data", **settings) as service:
        async with StreamClient(service.url, patience=patience) as client:
            done = await client.run(AGENT, "Tell me a joke", wait=True)
            assert done.answer is not None
            run = await client.run(AGENT, TRIP)
            finished = client.stream(done.conversation_id)
            first = await anext(finished)
            interrupted = client.stream(run.conversation_id)
            while len(collected.text) < 100:
                collected.take(await anext(interrupted))
            await asyncio.to_thread(service.stop, signal.SIGKILL)
            with running_service(tmp_path / "data", **settings):
                with pytest.raises(RunInterrupted):
                    await collect(interrupted, collected)
                rest += [event async for event in finished]
                report = await client.status(AGENT, run.conversation_id)
    assert "".join(event.text for event in [first, *rest] if isinstance(event, Text)) == done.answer.text
    assert (report.status, report.response) == ("Failed", collected.text)


async def collect(events: AsyncIterator[StreamEvent], collected: AnswerText) -> None:
    async for event in events:
        collected.take(event)
