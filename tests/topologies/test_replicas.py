"""An append that waits for replicas (``REDIS_WAIT_REPLICAS``): docs/redis.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of, new_id
from streaming.store import scripts
from tests.contract.conftest import TTL
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of
from tests.topologies.servers import Cluster, SentinelGroup

NewHandler = Callable[[], RedisStreamResponseHandler]


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not replicated here never is, so there is nothing to wait for."""
    monkeypatch.setattr(scripts, "REPLICA_TIMEOUT", scripts.REPLICA_TIMEOUT / 5)


@pytest.fixture
async def new_handler(topology: Cluster | SentinelGroup) -> AsyncIterator[NewHandler]:
    """Makes handlers that wait for a replica, each with a client of its own."""
    async with AsyncExitStack() as stack:

        def make() -> RedisStreamResponseHandler:
            handler = RedisStreamResponseHandler(connect(topology.url), TTL, wait_replicas=1)
            stack.push_async_callback(handler.aclose)
            return handler

        yield make


async def test_an_append_counts_once_a_replica_has_it(
    topology: Cluster | SentinelGroup, new_handler: NewHandler
) -> None:
    """While no replica answers, an append is refused however often it is repeated, and is stored once."""
    conversation = new_id()
    key = keys_of(conversation).stream
    handler = new_handler()
    attempt = await begin(handler, conversation, "r")
    await handler.runs.append(attempt, 0, [text("a")])
    await topology.cut_replicas(key)
    # Over another connection too, on which nothing was written before.
    for repeating in (handler, handler, new_handler()):
        with pytest.raises(RedisTimeoutError):
            await repeating.runs.append(attempt, 1, [text("b"), COMPLETED])
    await topology.restore()
    appended = await handler.runs.append(attempt, 1, [text("b"), COMPLETED])
    assert all(appended.entry_ids)
    assert text_of(await read_all(handler, conversation)) == "ab"


async def test_scripts_that_a_server_has_not_seen_are_sent_whole(
    new_handler: NewHandler,
) -> None:
    """A server that has forgotten the scripts is sent them, and its replicas are waited for all the same."""
    conversation = new_id()
    handler = new_handler()
    attempt = await begin(handler, conversation, "r")
    await handler.runs.commands.redis.script_flush()
    await handler.runs.append(attempt, 0, [text("a"), COMPLETED])
    assert text_of(await read_all(handler, conversation)) == "a"
