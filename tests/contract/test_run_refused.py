"""A run that its task hub does not take leaves nothing behind: docs/protocol.md, 3.7 and 5.9."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.durable_answer import DurableAnswer
from streaming.errors import TaskHubUnavailable
from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest
from streaming.http.task_hub import RunRequest
from streaming.settings import Settings
from streaming.store.run_states import RunState
from streaming.store.run_store import RunStore
from streaming.writing.leases import LeaseKeeper
from tests.contract.conftest import TTL

REQUEST = HttpRequest(path={"agent": "Teller"}, body=b"hello")


class AwayHub:
    """A task hub that does not answer."""

    async def start(self, request: RunRequest) -> None:  # noqa: ARG002 - the interface's
        """Refuse."""
        raise TaskHubUnavailable

    async def answer(
        self,
        agent: str,  # noqa: ARG002 - the interface's
        conversation_id: str,  # noqa: ARG002 - the interface's
        run: str | None,  # noqa: ARG002 - the interface's
    ) -> DurableAnswer | None:
        """Refuse."""
        raise TaskHubUnavailable

    async def is_healthy(self) -> bool:
        """It is not."""
        return False


@pytest.fixture
async def endpoints(
    handler: RedisStreamResponseHandler, new_client: Callable[..., Redis]
) -> AsyncIterator[Endpoints]:
    leases = LeaseKeeper(new_client, TTL)
    yield Endpoints(
        settings=Settings(),
        agents={"Teller": False},
        runs=handler.runs,
        reader=handler.reader,
        hub=AwayHub(),
        leases=leases,
    )
    await asyncio.to_thread(leases.close)


async def test_a_refused_run_is_not_kept(endpoints: Endpoints) -> None:
    """A run that the hub refused is in progress nowhere: it takes no place and no lease of it is renewed."""
    assert (await endpoints.run(REQUEST)).status == 503
    assert endpoints.leases.running() == []


async def test_a_refused_run_that_redis_can_not_end(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Redis leaves too, so that the run can't be ended, its lease lapses: no reader waits for ever."""

    async def fails(_runs: RunStore, _state: RunState) -> None:
        raise RedisError

    monkeypatch.setattr(RunStore, "fail_unstarted", fails)
    assert (await endpoints.run(REQUEST)).status == 503
    assert endpoints.leases.running() == []
