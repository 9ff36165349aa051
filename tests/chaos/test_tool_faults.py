"""Tools that fail or block: the run goes on or ends with a reason, and other runs don't feel it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from redis.asyncio import Redis

from streaming.store.run_store import LEASE
from tests.chaos.faulty_runs import FAULTY, shown, start, status_of
from tests.faulty_service import SECRET
from tests.service import Service, connect_http, open_events, read_events, running_service

#: Longer than a lease, so that one which is not renewed has lapsed.
LONGER_THAN_LEASE = LEASE.total_seconds() + 2
#: A blocked loop is looked at after this time: the lease of a run that nobody renews has lapsed by then, and
#: a reader has looked at it.
SECOND_LOOK = LEASE.total_seconds() + 1


@pytest.fixture
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose tools fail as they are told to, and whose streams expire within six seconds."""
    data_dir = tmp_path_factory.mktemp("tools") / "data"
    with running_service(data_dir, program=FAULTY, REDIS_STREAM_TTL_MINUTES="0.1") as running:
        yield running


@pytest.fixture
async def http(faulty: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that service."""
    async with connect_http(faulty) as client:
        yield client


async def test_tool_that_raises(faulty: Service, http: httpx.AsyncClient) -> None:
    """A tool's failure is told to the model, which goes on; its words reach neither a reader nor the log."""
    run = await start(
        http, {"say": "Let me see. "}, {"call": "explode"}, {"quote": True}, {"say": " Anyway."}
    )
    events = await read_events(http, run["conversation_id"], {"events": "all"})
    assert events[-1].event == "done"
    assert shown(events).startswith("Let me see. Error")
    assert shown(events).endswith(" Anyway.")
    assert "tool_result" in {event.event for event in events}
    assert SECRET not in str(events) + faulty.log


@pytest.mark.parametrize("tool", [pytest.param("block", marks=pytest.mark.long), "block_loop"])
async def test_tool_that_blocks(faulty: Service, http: httpx.AsyncClient, tool: str) -> None:
    """A tool that blocks its thread, or all agents' loop, costs no run its lease and no stream its keys."""
    # Redis keeps the scripts from an earlier run: what a blocked loop has sent needs no second try.
    await read_events(http, (await start(http, {"say": "warm"}))["conversation_id"])
    blocked = await start(
        http, {"say": "first "}, {"call": tool, "seconds": LONGER_THAN_LEASE}, {"say": "last"}
    )
    async with open_events(http, blocked["conversation_id"]) as stream:
        assert (await stream.next()).data == "first "
        started = time.monotonic()
        waiting = await start(http, {"say": "other"})
        reading = asyncio.create_task(read_events(http, waiting["conversation_id"]))
        await asyncio.sleep(SECOND_LOOK)
        # The service answers meanwhile, and neither run counts as dead.
        for run in (blocked, waiting):
            assert (await status_of(http, run))["status"] in ("Running", "Pending", "Completed")
        async with Redis.from_url(faulty.redis_url) as redis:
            assert await redis.exists(f"agent-stream:{blocked['conversation_id']}")
        rest = await stream.rest()
    assert time.monotonic() - started >= LEASE.total_seconds()
    assert shown(rest) == "last"
    assert rest[-1].event == "done"
    assert shown(await reading) == "other"
