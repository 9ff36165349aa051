"""Workers that die, work that is given twice, and a durable extension that is away."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from streaming.sse import ServerSentEvent
from tests.functions.conftest import Deploy, Deployed
from tests.service import SLOW, eventually, finished_run, open_events, read_events, start_run, text_of

#: Words per second: an answer takes some seconds.
UNHURRIED = "150"


async def read_to_the_end(http: httpx.AsyncClient, conversation: str) -> list[ServerSentEvent]:
    """Read as an ``EventSource`` does: come back with the last id whenever the response ends."""
    events: list[ServerSentEvent] = []
    async with asyncio.timeout(60):
        while not events or events[-1].event not in ("done", "error"):
            headers = {"last-event-id": events[-1].id} if events else {}
            try:
                async with open_events(http, conversation, headers=headers) as stream:
                    while (event := await stream.next()) is not None:
                        events.append(event)
            except (httpx.TransportError, AssertionError):
                # The worker is away, or the response has ended.
                await asyncio.sleep(0.05)
    return events


def shown(events: list[ServerSentEvent]) -> str:
    """What a page shows in the end: a reset discards what was there."""
    resets = [place for place, event in enumerate(events) if event.event == "reset"]
    return text_of(events[resets[-1] if resets else 0 :])


async def status_of(http: httpx.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    """What the status route says."""
    return dict((await http.get(run["links"]["status"])).json())


async def test_a_worker_killed_in_mid_run(deploy: Deploy) -> None:
    """The run is given to the next worker: a reader who stays sees a reset, then the answer once."""
    async with deploy(DEMO_MODEL_WORDS_PER_SECOND=UNHURRIED) as app:
        run = await start_run(app.http, "Plan a 1-day trip to Rome")
        reading = asyncio.create_task(read_to_the_end(app.http, run["conversation_id"]))

        async def has_begun() -> bool:
            return int((await status_of(app.http, run))["entries"]) > 5

        await eventually(has_begun, "the answer has begun")
        first = await app.host.worker()
        await first.kill()
        events = await reading
        status = await status_of(app.http, run)
        assert (await app.host.worker()).pid != first.pid
    assert [event.event for event in events].count("reset") == 1
    assert events[-1].event == "done"
    assert (status["status"], status["attempt"]) == ("Completed", 2)
    assert shown(events) == status["response"]


async def test_an_outcome_that_is_lost(app: Deployed) -> None:
    """Work that succeeded and is given again runs no model a second time, and adds nothing to the stream."""
    app.host.durable.lose_outcomes = 1
    run = await finished_run(app.http, "Plan a 1-day trip to Rome")

    async def is_delivered_twice() -> bool:
        return app.host.durable.deliveries == 2 and "not executed again" in app.log

    await eventually(is_delivered_twice, "the work was given again")
    events = await read_events(app.http, run["conversation_id"])
    assert text_of(events) == run["response"]
    assert [event.event for event in events].count("done") == 1
    assert app.log.count("run ended") == 1


async def test_a_durable_extension_that_is_away(app: Deployed) -> None:
    """Runs are refused with 503 and health tells why; when it is back, all is well."""
    app.host.durable.is_away = True
    refused = await app.http.post("/api/agents/TravelPlanner/run", content="Hello")
    health = await app.http.get("/api/health")
    assert (refused.status_code, refused.json()["code"]) == (503, "task_hub_unavailable")
    assert (health.status_code, health.json()["task_hub"]) == (503, "unavailable")
    app.host.durable.is_away = False
    assert (await finished_run(app.http, "Tell me a joke"))["status"]


async def test_a_run_that_waits_for_a_worker(app: Deployed) -> None:
    """A run that nobody has begun is pending; one that is cancelled then never runs the agent."""
    app.host.durable.dispatching.clear()
    run = await start_run(app.http, "Hello")
    assert (await status_of(app.http, run))["status"] == "Pending"
    assert (await app.http.delete(run["links"]["status"])).is_success
    app.host.durable.dispatching.set()
    events = await read_to_the_end(app.http, run["conversation_id"])
    assert (text_of(events), events[-1].event) == ("", "done")
    assert (await status_of(app.http, run))["status"] == "Canceled"


async def test_a_second_turn_remembers_the_first(app: Deployed) -> None:
    """The conversation is the entity's state: its second turn has both."""
    first = await finished_run(app.http, "Plan a 1-day trip to Rome")
    conversation = first["conversation_id"]
    second = await finished_run(app.http, "Plan a 2-day trip to Oslo", conversation_id=conversation)
    path = f"/runtime/webhooks/durabletask/entities/dafx-travelplanner/{conversation}"

    async def has_both() -> bool:
        # A turn is saved a moment after its stream has ended.
        history = (await app.http.get(path)).json()["data"]["conversationHistory"]
        turns = [first["correlation_id"]] * 2 + [second["correlation_id"]] * 2
        return [each["correlationId"] for each in history] == turns

    await eventually(has_both, "both turns are in the entity's state")


@pytest.mark.parametrize("is_silent", [True, False])
async def test_streams_end_before_the_platform_ends_them(
    deploy: Deploy, redis_url: str, *, is_silent: bool
) -> None:
    """A stream that would outlast functionTimeout ends with retry before it, and its worker lives on."""
    async with (
        deploy(function_timeout="00:00:03") as app,
        RedisStreamResponseHandler(connect(redis_url)) as writer,
    ):
        worker = await app.host.worker()
        await writer.write_chunk("endless", "so far", 0)

        async def go_on() -> None:
            sequence = 1
            while not is_silent:
                await writer.write_chunk("endless", ".", sequence)
                sequence += 1
                await asyncio.sleep(0.01)

        going_on = asyncio.create_task(go_on())
        async with open_events(app.http, "endless") as stream:
            events = await stream.rest()
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
        assert stream.received.endswith(b"retry: 1000\n\n")
        assert events[0].data == "so far"
        assert not worker.lost.is_set()


async def test_a_run_that_would_outlast_the_platform(deploy: Deploy) -> None:
    """A run ends as timed out before functionTimeout, so that its reader gets a reason and others live on."""
    async with deploy(function_timeout="00:00:04", DEMO_MODEL_WORDS_PER_SECOND=SLOW) as app:
        worker = await app.host.worker()
        run = await start_run(app.http, "Plan a 3-day trip to Rome")
        events = await read_to_the_end(app.http, run["conversation_id"])
        status = await status_of(app.http, run)
        assert not worker.lost.is_set()
    assert (events[-1].event, status["status"], status["code"]) == ("error", "Failed", "run_timeout")


async def test_connections_are_few_and_stay(app: Deployed, redis_url: str) -> None:
    """However many runs and readers there are, the app keeps its few connections to Redis."""
    async with Redis.from_url(redis_url) as redis:
        for _ in range(2):
            runs = [await start_run(app.http, "Plan a 1-day trip to Rome") for _ in range(10)]
            await asyncio.gather(*(read_events(app.http, run["conversation_id"]) for run in runs))
        connections = len(await redis.client_list()) - 1
        received = (await redis.info("stats"))["total_connections_received"]
        runs = [await start_run(app.http, "Plan a 1-day trip to Rome") for _ in range(10)]
        await asyncio.gather(*(read_events(app.http, run["conversation_id"]) for run in runs))
        assert await redis.exists(keys_of(runs[0]["conversation_id"]).stream)
        assert (await redis.info("stats"))["total_connections_received"] - received < len(runs)
    assert connections < 30
