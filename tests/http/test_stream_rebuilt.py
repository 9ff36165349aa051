"""The stream route after Redis has lost the stream: the durable state is the truth."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from redis.asyncio import Redis

from tests.service import (
    Service,
    connect_http,
    finished_run,
    read_events,
    read_plain,
    running_service,
    stream_path,
    text_of,
)


@pytest.fixture(scope="module")
def forgetful(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose Redis is flushed."""
    with running_service(tmp_path_factory.mktemp("forgetful") / "data", program=program) as running:
        yield running


@pytest.fixture
async def turns(forgetful: Service) -> list[dict[str, str]]:
    """Two finished turns of one conversation, whose stream is gone."""
    async with connect_http(forgetful) as http, Redis.from_url(forgetful.redis_url) as redis:
        first = await finished_run(http, "Plan a 1-day trip to Rome")
        conversation = first["conversation_id"]
        events = await read_events(http, conversation)
        second = await finished_run(http, "Plan a 2-day trip to Paris", conversation_id=conversation)
        await redis.flushall()
    return [{**first, "cursor": events[3].id}, second]


async def test_flushed_stream_is_rebuilt(forgetful: Service, turns: list[dict[str, str]]) -> None:
    """A stream that was flushed after its run is there again: the latest answer, exactly, with its end."""
    async with connect_http(forgetful) as http:
        conversation = turns[1]["conversation_id"]
        events = await read_events(http, conversation)
        assert events[0].event == "reset"
        assert (text_of(events), events[-1].event) == (turns[1]["response"], "done")
        after = await http.get(stream_path(conversation), headers={"last-event-id": events[-1].id})
        assert after.status_code == 204


@pytest.mark.parametrize("turn", [0, 1])
async def test_flushed_run_is_rebuilt_by_name(
    forgetful: Service, turns: list[dict[str, str]], turn: int
) -> None:
    """Each turn of a flushed conversation can be read by its run; the latest stays the latest."""
    async with connect_http(forgetful) as http:
        conversation = turns[0]["conversation_id"]
        run = {"run": turns[turn]["correlation_id"]}
        assert await read_plain(http, conversation, run) == turns[turn]["response"]
        assert await read_plain(http, conversation) == turns[1]["response"]
        status = await http.get(f"/api/agents/TravelPlanner/run/{conversation}", params=run)
        assert (status.json()["status"], status.json()["response"]) == ("Completed", turns[turn]["response"])


async def test_reader_that_comes_back_after_a_flush(forgetful: Service, turns: list[dict[str, str]]) -> None:
    """A browser that had a part of the answer is told to discard it, then gets it whole."""
    async with connect_http(forgetful) as http:
        events = await read_events(
            http,
            turns[0]["conversation_id"],
            {"run": turns[0]["correlation_id"]},
            {"last-event-id": turns[0]["cursor"]},
        )
    assert [event.event for event in events[:2]] == ["reset", "reset"]
    assert text_of(events) == turns[0]["response"]


async def test_unknown_conversation_is_still_not_found(forgetful: Service) -> None:
    """What the durable state does not know either is a 404."""
    async with connect_http(forgetful) as http:
        answers: list[httpx.Response] = [
            await http.get(stream_path("nobody")),
            await http.get(stream_path("nobody"), params={"run": "nothing"}),
        ]
    assert [answer.status_code for answer in answers] == [404, 404]


async def test_deleted_stream_is_rebuilt_at_once(forgetful: Service) -> None:
    """A stream that was deleted, while Redis still knows its run, is there again with the next read."""
    async with connect_http(forgetful) as http, Redis.from_url(forgetful.redis_url) as redis:
        run = await finished_run(http, "Plan a 1-day trip to Rome")
        await redis.delete(f"agent-stream:{run['conversation_id']}")
        assert await read_plain(http, run["conversation_id"]) == run["response"]
