"""One contract, two servers: the in-memory fake and a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from hosting.embedded.redis_server import EmbeddedRedis
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect

TTL = timedelta(minutes=10)
#: Nothing here takes a tenth of it; a hang is to fail, not to last.
BOUND = 10.0


@pytest.fixture(scope="session")
def real_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server for the whole session."""
    folder: Path = tmp_path_factory.mktemp("redis")
    server = EmbeddedRedis(folder)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture(params=["fake", "real"])
def new_client(request: pytest.FixtureRequest) -> Callable[..., Redis]:
    """Makes clients of one empty server."""
    if request.param == "fake":
        server = FakeServer()
        return lambda **options: FakeAsyncRedis(server=server, **options)
    url: str = request.getfixturevalue("real_redis_url")

    def make(**options: bool) -> Redis:
        return Redis.from_url(url, **options) if options else connect(url)

    return make


@pytest.fixture
async def redis(new_client: Callable[..., Redis]) -> AsyncIterator[Redis]:
    """A client of an empty server. After the test no key may be left without a TTL."""
    client = new_client()
    await client.flushall()
    yield client
    keys = [key async for key in client.scan_iter()]
    immortal = [key for key in keys if await client.ttl(key) < 0 and b"foreign" not in key]
    await client.aclose()
    assert not immortal, f"keys without a TTL: {immortal}"


@pytest.fixture
async def handler(redis: Redis) -> AsyncIterator[RedisStreamResponseHandler]:
    """A handler on that server."""
    made = RedisStreamResponseHandler(redis, TTL)
    yield made
    await made.reader.close()
