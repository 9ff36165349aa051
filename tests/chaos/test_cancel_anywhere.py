"""A run can be stopped at any moment, from anywhere: docs/protocol.md, section 5.4."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.chaos.faulty_runs import FAULTY, Step, cancel, memory_of, shown, start, status_of
from tests.service import Service, connect_http, open_events, read_events, running_service

#: Longer than any of these tests.
LONG = 3_600
#: A sync tool can't be stopped; its thread goes on for this time, and its result must not come back.
TOOL_SECONDS = 2


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose agent is wherever the test wants it to be."""
    with running_service(tmp_path_factory.mktemp("cancel") / "data", program=FAULTY) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(faulty: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Another service on the same Redis."""
    data_dir = tmp_path_factory.mktemp("neighbour") / "data"
    with running_service(data_dir, program=FAULTY, REDIS_CONNECTION_STRING=faulty.redis_url) as running:
        yield running


@pytest.fixture
async def http(faulty: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the first service."""
    async with connect_http(faulty) as client:
        yield client


MOMENTS: list[list[Step]] = [
    [{"stall": LONG}],
    [{"call": "wait", "seconds": LONG}],
    [{"call": "block", "seconds": TOOL_SECONDS}],
]


@pytest.mark.parametrize("doing", MOMENTS, ids=["stalled model", "async tool", "sync tool"])
async def test_cancel_whatever_the_agent_does(http: httpx.AsyncClient, doing: list[Step]) -> None:
    """A cancel reaches an agent that waits for its model or a tool; what it said stays, nothing follows."""
    run = await start(http, {"say": "so far"}, *doing, {"say": "never"})
    async with open_events(http, run["conversation_id"]) as stream:
        events = [await stream.next()]
        answer = await cancel(http, run)
        assert (answer.status_code, answer.json()["status"]) == (202, "Canceling")
        events += await stream.rest()
    assert (shown(events), events[-1].event) == ("so far", "done")
    status = await status_of(http, run)
    assert (status["status"], status["response"]) == ("Canceled", "so far")
    # The next turn waits for nothing, and its model is shown the part that there was.
    assert (await memory_of(http, run["conversation_id"]))[-1] == "so far"
    again = await read_events(http, run["conversation_id"], {"run": run["correlation_id"]})
    assert shown(again) == "so far"


async def test_cancel_from_another_process(http: httpx.AsyncClient, neighbour: Service) -> None:
    """A service that does not execute the run stops it all the same, at once."""
    run = await start(http, {"say": "so far"}, {"stall": LONG})
    async with connect_http(neighbour) as elsewhere, open_events(elsewhere, run["conversation_id"]) as stream:
        events = [await stream.next()]
        assert (await cancel(elsewhere, run)).status_code == 202
        events += await stream.rest()
        assert (shown(events), events[-1].event) == ("so far", "done")
        assert (await status_of(elsewhere, run))["status"] == "Canceled"


async def test_cancel_before_the_start_from_another_process(
    http: httpx.AsyncClient, neighbour: Service
) -> None:
    """A run that waits for its turn is ended at once by any service, and never executed."""
    first = await start(http, {"say": "first"}, {"stall": LONG})
    conversation = first["conversation_id"]
    second = await start(http, {"say": "second"}, conversation_id=conversation)
    async with connect_http(neighbour) as elsewhere:
        answer = await cancel(elsewhere, second)
        assert (answer.status_code, answer.json()["status"]) == (200, "Canceled")
    await cancel(http, first)
    await read_events(http, conversation, {"run": first["correlation_id"]})
    assert (await memory_of(http, conversation))[-1] == "first"
    assert (await status_of(http, second))["status"] == "Canceled"


async def test_cancel_that_races_with_the_end(http: httpx.AsyncClient) -> None:
    """A cancel around the end of a run leaves one terminal, and a status that says the same."""
    for number in range(10):
        run = await start(http, {"say": "word ", "times": 20 * number}, {"say": "end"})
        answers = await asyncio.gather(*(cancel(http, run) for _ in range(3)))
        assert {answer.status_code for answer in answers} <= {200, 202}
        events = await read_events(http, run["conversation_id"])
        assert [event.event for event in events].count("done") == 1
        status = await status_of(http, run)
        assert status["status"] in ("Canceled", "Completed")
        assert status["response"] == shown(events)


async def test_cancel_after_the_end(http: httpx.AsyncClient) -> None:
    """A run that has ended stays as it ended, however often it is cancelled."""
    run = await start(http, {"say": "done"})
    await read_events(http, run["conversation_id"])
    for _ in range(2):
        answer = await cancel(http, run)
        assert (answer.status_code, answer.json()["status"]) == (200, "Completed")
