"""A real Redis, and what writes into it and reads from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import new_id
from streaming.writing.leases import LeaseKeeper
from tests.redis_server import RedisServer, redis_server
from tests.vendor_streams.recorded import TTL


@pytest.fixture(scope="session")
def redis_for_vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that leave it running."""
    with redis_server(tmp_path_factory.mktemp("vendor-redis")) as server:
        asyncio.run(server.start())
        yield server


@pytest.fixture
async def handler(redis_for_vendors: RedisServer) -> AsyncIterator[RedisStreamResponseHandler]:
    """The handler of the test's loop. After the test no key may be left without a TTL."""
    async with RedisStreamResponseHandler(connect(redis_for_vendors.url), TTL) as handler:
        yield handler
        async with redis_for_vendors.client() as redis:
            assert [key async for key in redis.scan_iter() if await redis.ttl(key) < 0] == []


@pytest.fixture
async def leases(redis_for_vendors: RedisServer) -> AsyncIterator[LeaseKeeper]:
    """A lease keeper; at the end it may keep no run."""
    keeper = LeaseKeeper(lambda: connect(redis_for_vendors.url), TTL)
    yield keeper
    kept = keeper.running()
    await asyncio.to_thread(keeper.close)
    assert kept == []


@pytest.fixture
def conversation() -> str:
    """A new conversation."""
    return new_id()
