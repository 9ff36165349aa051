"""Two runs in one conversation at once, executed by two processes: each reader sees exactly its run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streaming.sse import ServerSentEvent
from streaming.store.stored_entries import decode_page
from tests.chaos.faulty_runs import FAULTY, Run, Step, shown, start, status_of
from tests.service import Service, connect_http, eventually, read_events, running_service

#: Words of a run; both runs' words fall between each other.
WORDS = 30


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """Two services on one Redis, each with a task hub of its own, so that nothing queues their runs."""
    folder = tmp_path_factory.mktemp("two")
    with (
        running_service(folder / "one", program=FAULTY) as one,
        running_service(folder / "two", program=FAULTY, REDIS_CONNECTION_STRING=one.redis_url) as two,
    ):
        yield one, two


@pytest.fixture
async def clients(
    services: tuple[Service, Service],
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """A client of each."""
    async with connect_http(services[0]) as one, connect_http(services[1]) as two:
        yield one, two


def words(name: str) -> list[Step]:
    """Steps that write a run's words with pauses between them."""
    return [step for number in range(WORDS) for step in ({"say": f"{name}{number} "}, {"stall": 0.02})]


def answer(name: str) -> str:
    """What a run has said in the end."""
    return "".join(f"{name}{number} " for number in range(WORDS))


async def test_interleaved_runs_are_read_apart(
    services: tuple[Service, Service], clients: tuple[httpx.AsyncClient, httpx.AsyncClient], tmp_path: Path
) -> None:
    """Live, again, and resumed from every one of its entries, a run is read whole and without the other."""
    one, two = clients
    both: Step = {"until": str(tmp_path / "both have begun")}
    first = await start(one, both, *words("a"))
    conversation = first["conversation_id"]
    second = await start(two, both, *words("b"), conversation_id=conversation)

    async def have_begun() -> bool:
        told = [await status_of(client, run) for client, run in ((one, first), (two, second))]
        return {each["status"] for each in told} == {"Running"}

    await eventually(have_begun, "both runs have begun")
    (tmp_path / "both have begun").touch()
    named: list[tuple[httpx.AsyncClient, Run, str]] = [
        (client, run, name) for client in clients for run, name in ((first, "a"), (second, "b"))
    ]
    live = await asyncio.gather(*(_read(client, run) for client, run, _ in named))
    for events, (_, _, name) in zip(live, named, strict=True):
        assert (shown(events), events[-1].event) == (answer(name), "done")
    assert await _is_interleaved(services[0], conversation)
    # Without a name it is the latest that is read; with a cursor, the run that the cursor's entry is of.
    assert shown(await read_events(one, conversation)) == answer("b")
    for events, (client, run, name) in zip(live[:2], named[:2], strict=True):
        await _resume_from_everywhere(client, run, events)
        status = await status_of(client, run)
        assert (status["status"], status["response"]) == ("Completed", answer(name))


async def _read(client: httpx.AsyncClient, run: Run, **params: Any) -> list[ServerSentEvent]:
    named = {"run": run["correlation_id"], **params}
    return await read_events(client, run["conversation_id"], named)


async def _resume_from_everywhere(client: httpx.AsyncClient, run: Run, events: list[ServerSentEvent]) -> None:
    for place, event in enumerate(events[:-1]):
        rest = events[place + 1 :]
        assert await _read(client, run, cursor=event.id) == rest
        assert await read_events(client, run["conversation_id"], {"cursor": event.id}) == rest


async def _is_interleaved(service: Service, conversation: str) -> bool:
    """Whether the runs' entries fall between each other: else the test says nothing."""
    async with Redis.from_url(service.redis_url) as redis:
        entries = decode_page(await redis.xrange(f"agent-stream:{conversation}"))
    changes = [1 for before, after in pairwise(entries) if before.run != after.run]
    return len(changes) > WORDS / 2


async def test_runs_that_queue_are_read_apart(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """In one service the second run waits for the first; its early reader gets nothing of the first."""
    one, _ = clients
    first = await start(one, *words("a"))
    second = await start(one, *words("b"), conversation_id=first["conversation_id"])
    events = await asyncio.gather(*(_read(client, run) for client in clients for run in (first, second)))
    assert [shown(each) for each in events] == [answer("a"), answer("b")] * 2
