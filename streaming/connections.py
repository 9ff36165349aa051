"""The only place that builds Redis clients, and says why each limit is what it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

#: A connection is opened within this time or Redis counts as away.
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
#: A command answers within this time or Redis counts as away. No command of ours blocks in Redis on these
#: connections, so a slower answer is trouble, not work.
COMMAND_TIMEOUT: Final = timedelta(seconds=10)
#: Connections of one event loop. Commands share them and readers hold none, so a few carry thousands of
#: streams; the pool makes the next command wait rather than fail.
POOL_SIZE: Final = 16
#: How long a command waits for a free connection.
POOL_TIMEOUT: Final = timedelta(seconds=10)
#: An idle connection is checked before use: cloud load balancers drop idle ones in silence after minutes.
HEALTH_CHECK_INTERVAL: Final = timedelta(seconds=30)
#: Quick retries inside the driver, for a connection that broke while idle. The writer and the readers have
#: their own patience above it.
DRIVER_RETRIES: Final = 1


def connect(redis_url: str) -> Redis:
    """Build a client for the running event loop. It connects at its first command.

    A client belongs to one event loop; ``streaming.loop_local`` keeps one for each.
    """
    # A socket of the file system has no network to lose it.
    network_options = {} if redis_url.startswith("unix:") else {"socket_keepalive": True}
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=POOL_SIZE,
        timeout=POOL_TIMEOUT.total_seconds(),
        socket_connect_timeout=CONNECT_TIMEOUT.total_seconds(),
        socket_timeout=COMMAND_TIMEOUT.total_seconds(),
        **network_options,
        health_check_interval=HEALTH_CHECK_INTERVAL.total_seconds(),
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), DRIVER_RETRIES),
        # RESP2 everywhere: one reply shape for Redis, Valkey and the in-memory test server alike.
        protocol=2,
    )
    return Redis.from_pool(pool)
