"""When a trail is read, and how its last event is waited for: docs/protocol.md, 5.10."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis

from bridges.audit_trail import endpoints as routes
from bridges.audit_trail.endpoints import AuditTrailEndpoints
from bridges.audit_trail.events import EventType, Thread, TrailEvent
from bridges.audit_trail.memory_store import MemoryTrailStore
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest
from streaming.settings import Settings
from tests.contract.conftest import BOUND, TTL
from tests.contract.reading import complete_run

AGENT = "Agent"
THREAD = Thread(AGENT, "c")
SETTINGS = AuditTrailSettings(agents=(AGENT,))


class WatchedStore(MemoryTrailStore):
    """Tells that somebody has looked whether a run is settled."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, timedelta(hours=1))
        self.looks = 0
        self.looked = asyncio.Event()

    async def is_settled(self, thread: Thread, run: str) -> bool:
        """Look."""
        self.looks += 1
        self.looked.set()
        return await super().is_settled(thread, run)


class Reading:
    """The routes, over a stream store that is not real and a trail store that is watched."""

    def __init__(self) -> None:
        self.handler = RedisStreamResponseHandler(FakeAsyncRedis(), TTL)
        self.store = WatchedStore()
        self._routes = AuditTrailEndpoints(lambda: self.store, SETTINGS)
        self._endpoints = Endpoints(
            settings=Settings(),
            agents={AGENT: True, "Other": True},
            runs=self.handler.runs,
            reader=self.handler.reader,
            # Neither is asked by these routes.
            hub=cast("Any", None),
            leases=cast("Any", None),
        )

    async def get(self, agent: str = AGENT, **query: str) -> list[str]:
        """The types of the events."""
        request = HttpRequest(path={"agent": agent, "conversation_id": "c"}, query=query)
        async with asyncio.timeout(BOUND):
            response = await self._routes.callbacks(self._endpoints, request)
        assert isinstance(response.body, bytes)
        return [event["event_type"] for event in json.loads(response.body)]

    async def tell(self, kind: EventType, first: int) -> None:
        """Append an event of run ``r``."""
        data = {"response_text": ""} if kind is EventType.FINAL else {"update_kind": "text", "text": "x"}
        await self.store.append(Batch(THREAD, "r", "1", first, [TrailEvent(1, kind, data)], None))


@pytest.fixture
def reading() -> Reading:
    return Reading()


async def test_the_end_is_waited_for(reading: Reading) -> None:
    """Whoever asks after a run's stream has ended, and before its trail has, waits for the last event."""
    await reading.tell(EventType.STREAM, 0)
    await complete_run(reading.handler, "c", "r", "x")
    asked = asyncio.create_task(reading.get())
    await reading.store.looked.wait()
    await reading.tell(EventType.FINAL, 1)
    assert await asked == ["stream", "final"]


async def test_an_end_that_does_not_come(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a bounded time; then there is what there is."""
    monkeypatch.setattr(routes, "CLOSING_PATIENCE", timedelta(milliseconds=50))
    await reading.tell(EventType.STREAM, 0)
    await complete_run(reading.handler, "c", "r", "x")
    assert await reading.get() == ["stream"]
    assert reading.store.looks > 1


async def test_an_end_of_long_ago_is_not_waited_for(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trail that lost its end is read at once, for as long as it is kept."""
    monkeypatch.setattr(routes, "CLOSING_WINDOW", timedelta(0))
    await reading.tell(EventType.STREAM, 0)
    await complete_run(reading.handler, "c", "r", "x")
    assert await reading.get() == ["stream"]
    assert reading.store.looks == 1


@pytest.mark.parametrize("query", [{}, {"run": "r"}, {"run": "unknown"}])
async def test_what_goes_on_is_not_waited_for(reading: Reading, query: dict[str, str]) -> None:
    """The trail of a run that goes on is read at once."""
    await reading.handler.begin_run("c", "r", agent=AGENT, owner="worker")
    await reading.tell(EventType.STREAM, 0)
    assert await reading.get(**query) == ([] if query.get("run") == "unknown" else ["stream"])
    assert reading.store.looks == 0


async def test_agents_that_are_not_observed_are_not_waited_for(reading: Reading) -> None:
    """Another agent's runs have no trail to wait for."""
    await complete_run(reading.handler, "c", "r", "x")
    assert await reading.get("Other") == []
    assert reading.store.looks == 0


async def test_a_run_that_never_began_has_an_end(reading: Reading) -> None:
    """A run that was cancelled before it began, of which no callback tells, has one error event."""
    state = await reading.handler.runs.register("c", "r", AGENT)
    assert await reading.handler.runs.cancel_unstarted(state)
    for _ in range(2):
        assert await reading.get() == ["error"]
