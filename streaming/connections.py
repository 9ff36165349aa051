"""The only place that builds Redis clients, and says why each limit is what it is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import RedisClusterException

from streaming.cluster_client import ClusterClient, SubscriptionPool, node_of
from streaming.redis_address import RedisAddress, Topology, parse_redis_address
from streaming.sentinel_pool import MasterPool

#: A connection is opened within this time or Redis counts as away.
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
#: A command answers within this time or Redis counts as away. No command of ours blocks in Redis on these
#: connections, so a slower answer is trouble, not work.
COMMAND_TIMEOUT: Final = timedelta(seconds=10)
#: A sentinel answers within this time or the next one is asked: the one that stood beside a lost master is
#: lost with it, and is not to hold up the way to the new one.
SENTINEL_TIMEOUT: Final = timedelta(seconds=1)
#: Connections of one event loop (on a cluster, to each node). Commands share them and readers hold none, so a
#: few carry thousands of streams; the pool makes the next command wait rather than fail.
POOL_SIZE: Final = 16
#: How long a command waits for a free connection.
POOL_TIMEOUT: Final = timedelta(seconds=10)
#: An idle connection is checked before use: cloud load balancers drop idle ones in silence after minutes.
HEALTH_CHECK_INTERVAL: Final = timedelta(seconds=30)
#: A cluster's slots are learned anew before each of these.
CLUSTER_RETRIES: Final = 3
#: The protocol of our own connections: one reply shape for Redis, Valkey and the in-memory test server alike.
_RESP2: Final = 2
#: Quick retries inside the driver, for a connection that broke while idle. The writer and the readers have
#: their own patience above it.
DRIVER_RETRIES: Final = 1


def connect(redis_url: str) -> Redis:
    """Build a client for the running event loop. It connects at its first command.

    A client belongs to one event loop; ``streaming.loop_local`` keeps one for each. A cluster's client is a
    ``RedisCluster``: the commands in use here are the same.

    Raises:
        ValueError: the URL can't be used.
    """
    address = parse_redis_address(redis_url)
    options = _options(address)
    if address.topology is Topology.CLUSTER:
        return _connect_cluster(address, options)
    if address.topology is Topology.SENTINEL:
        return _connect_sentinel(address, options)
    # A socket of the file system has no network to lose it.
    network_options = {} if address.is_socket else {"socket_keepalive": True}
    pool = BlockingConnectionPool.from_url(address.driver_url, **_POOL_OPTIONS, **network_options, **options)
    return Redis.from_pool(pool)


def subscription(redis: Redis, **options: Any) -> PubSub:
    """A subscription that finds its way back by itself, on whatever topology the client is for."""
    if is_cluster(redis):
        # Each node hears of everything that is published in the cluster; the driver's own subscription would
        # stay with one node for good, even a dead one.
        return PubSub(SubscriptionPool.beside(cast("RedisCluster", redis)), **options)
    return redis.pubsub(**options)


async def execute_together(redis: Redis, key: str, *commands: tuple[Any, ...]) -> list[Any]:
    """Send commands over one connection, in one round trip, to the server that has ``key``.

    Gives their replies, errors that Redis answered among them.

    Raises:
        RedisError: Redis is away.
    """
    client: object = redis
    if isinstance(client, ClusterClient):
        return await client.execute_together(key, *commands)
    async with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            _ = pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))


@asynccontextmanager
async def own_connection(redis: Redis, key: str) -> AsyncIterator[AbstractConnection]:
    """A new connection to the server that has ``key``, for whoever asks alone. It is closed afterwards.

    Raises:
        RedisError: Redis is away.
    """
    node = await node_of(cast("RedisCluster", redis), key) if is_cluster(redis) else None
    connection: Connection = (
        await redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        if node is None
        else node.acquire_connection()
    )
    try:
        # It may have been idle, or signed in, for long.
        await connection.disconnect(nowait=True)
        await connection.connect()  # type: ignore[no-untyped-call]
        yield connection
    finally:
        await connection.disconnect(nowait=True)
        if node is None:
            await redis.connection_pool.release(connection)
        else:
            node.release(connection)


def server_of(redis: Redis, key: str) -> str:
    """A name of the server that has ``key``, as far as is known; there may be only one."""
    if not is_cluster(redis):
        return ""
    with contextlib.suppress(RedisClusterException):
        node = cast("RedisCluster", redis).get_node_from_key(key)
        return "" if node is None else node.name
    return ""


def is_cluster(redis: Redis) -> bool:
    """Whether the client is a cluster's, where one command can't take keys of several slots."""
    return isinstance(redis, RedisCluster)


_POOL_OPTIONS: Final[dict[str, Any]] = {
    "max_connections": POOL_SIZE,
    "timeout": POOL_TIMEOUT.total_seconds(),
}


def _options(address: RedisAddress) -> dict[str, Any]:
    """What all connections have in common."""
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT.total_seconds(),
        "socket_timeout": COMMAND_TIMEOUT.total_seconds(),
        "health_check_interval": HEALTH_CHECK_INTERVAL.total_seconds(),
        "retry": Retry(_backoff(), DRIVER_RETRIES),
        "protocol": _RESP2,
    }
    if address.entra is not None:
        # Only where it is asked for: these packages are large.
        from streaming.entra_sign_in import EntraCredentials  # noqa: PLC0415

        options["credential_provider"] = EntraCredentials(address.entra)
    return options


def _backoff() -> ExponentialBackoff:
    return ExponentialBackoff(cap=0.1, base=0.01)


def _connect_cluster(address: RedisAddress, options: dict[str, Any]) -> Redis:
    return cast(
        "Redis",
        ClusterClient.from_url(
            address.driver_url,
            startup_nodes=[ClusterNode(node.host, node.port) for node in address.nodes[1:]],
            commands_at_once=POOL_SIZE,
            turn_timeout=POOL_TIMEOUT,
            **{**options, "retry": Retry(_backoff(), CLUSTER_RETRIES)},
            # One lost part of the slots is not to take the others with it.
            require_full_coverage=False,
        ),
    )


def _connect_sentinel(address: RedisAddress, options: dict[str, Any]) -> Redis:
    from_url = BlockingConnectionPool.from_url(address.driver_url)
    given = {**options, **from_url.connection_kwargs}
    tls = {name: value for name, value in given.items() if name.startswith("ssl")}
    is_secure = address.driver_url.startswith("rediss:")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [(node.host, node.port) for node in address.nodes],
        sentinel_kwargs={
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "ssl": is_secure,
            **tls,
            "socket_connect_timeout": SENTINEL_TIMEOUT.total_seconds(),
            "socket_timeout": SENTINEL_TIMEOUT.total_seconds(),
            # The next sentinel is the retry.
            "retry": Retry(NoBackoff(), 0),
            "protocol": _RESP2,
        },
    )
    for name in ("host", "port"):
        given.pop(name, None)
    pool = MasterPool(
        address.service, sentinel, **_POOL_OPTIONS, ssl=is_secure, socket_keepalive=True, **given
    )
    return Redis.from_pool(pool)
