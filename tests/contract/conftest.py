"""One contract, four servers: the in-memory fake, Valkey, Redis, and a cluster."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from hosting.embedded.redis_server import EmbeddedRedis
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from tests.topologies.servers import Cluster, answers, running, start_server, valkey, wait_for

TTL = timedelta(minutes=10)
#: Nothing here takes a tenth of it; a hang is to fail, not to last.
BOUND = 30.0


@pytest.fixture(scope="session")
def real_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Valkey, for the whole session."""
    folder: Path = tmp_path_factory.mktemp("redis")
    server = EmbeddedRedis(folder)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Redis, for the whole session."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    server = start_server(Path(binary), tmp_path_factory.mktemp("redis-server"))
    asyncio.run(wait_for(lambda: answers(server.port), "Redis answers"))
    yield f"redis://127.0.0.1:{server.port}/0"
    server.kill()


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster that nobody breaks, for the whole session."""
    with running(Cluster(valkey(), tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster.url


@pytest.fixture(
    params=["fake", "real_redis_url", "redis_server_url", "cluster_url"],
    ids=["fake", "valkey", "redis", "cluster"],
)
def new_client(request: pytest.FixtureRequest) -> Callable[..., Redis]:
    """Makes clients of one empty server."""
    if request.param == "fake":
        server = FakeServer()
        return lambda **options: FakeAsyncRedis(server=server, **options)
    url: str = request.getfixturevalue(request.param)

    def make(**options: bool) -> Redis:
        query = "&".join(f"{name}=yes" for name, wanted in options.items() if wanted)
        return connect(f"{url}?{query}" if query else url)

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
