"""What the clients of each topology promise to the rooms above them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streaming.cluster_client import ClusterClient
from streaming.connections import CONNECT_TIMEOUT, POOL_SIZE, connect, is_cluster, subscription
from streaming.entries import RunStatus
from streaming.identifiers import keys_of
from streaming.store.run_store import RunStore
from tests.service import eventually
from tests.topologies.servers import PATIENCE, SENTINELS, Cluster, SentinelGroup, ask

CHANNEL = "c"


@pytest.fixture
async def redis(topology: Cluster | SentinelGroup) -> AsyncIterator[Redis]:
    """A client."""
    client = connect(topology.url)
    yield client
    await client.aclose()


async def test_commands_wait_for_a_connection(topology: Cluster | SentinelGroup, redis: Redis) -> None:
    """Hundreds of commands at once share a few connections; none of them fails."""
    await redis.set("a", "b")
    assert await asyncio.gather(*(redis.get("a") for _ in range(500))) == [b"b"] * 500
    master = await topology.master_for("a")
    # The tester's own, and those of replicas, sentinels and the cluster's bus, have other names or none.
    clients = str(await ask(master.port, "CLIENT", "LIST", "TYPE", "normal"))
    assert clients.count("cmd=get") <= POOL_SIZE


async def test_no_sentinel_is_forgotten(sentinel_group: SentinelGroup) -> None:
    """However many connections ask the sentinels at once while one hangs, all of them stay known."""
    client = connect(sentinel_group.url)
    pool: Any = client.connection_pool
    for hanging in sentinel_group.sentinels:
        hanging.freeze()
        try:
            await asyncio.gather(*(client.exists("a") for _ in range(POOL_SIZE)))
        finally:
            hanging.resume()
        await pool.disconnect()
        assert len({id(sentinel) for sentinel in pool.sentinel_manager.sentinels}) == SENTINELS
    await client.aclose()


async def test_nodes_that_hang_hold_up_no_new_client(cluster: Cluster) -> None:
    """While no command needs the nodes that hang, a new client soon knows all slots, and all nodes."""
    masters = {(await cluster.master_for(key)).port for key in ("a", "b", "c")}
    replicas = [server for port, server in cluster.servers.items() if port not in masters]
    # The driver asks the nodes in random order: one of ten would begin with a hanging one.
    clients = [connect(cluster.url) for _ in range(10)]
    for hanging in replicas:
        hanging.freeze()
    try:
        async with asyncio.timeout((CONNECT_TIMEOUT / 2).total_seconds()):
            await asyncio.gather(*(client.exists("a") for client in clients))
    finally:
        for hanging in replicas:
            hanging.resume()
    for client in clients:
        assert len(cast("ClusterClient", client).get_nodes()) == len(cluster.servers)
        await client.aclose()


async def test_a_subscription_finds_another_server(topology: Cluster | SentinelGroup, redis: Redis) -> None:
    """When the server that it listens to dies, a subscription goes on elsewhere and says that it did."""
    pubsub = subscription(redis)
    await pubsub.subscribe(CHANNEL)
    heard: list[str] = []

    async def listen() -> None:
        while True:
            try:
                message = await pubsub.get_message(timeout=1)
            except (RedisError, OSError):
                await asyncio.sleep(0.05)
                continue
            if message is not None:
                heard.append(message["type"])

    async def published_and_heard() -> bool:
        await redis.publish(CHANNEL, "x")
        return "message" in heard

    listening = asyncio.create_task(listen())
    try:
        await eventually(lambda: _is(heard, ["subscribe"]), "subscribed")
        connection: Any = pubsub.connection
        topology.servers[int(connection.port)].kill()
        await eventually(lambda: _is(heard, ["subscribe", "subscribe"]), "subscribed again")
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if await published_and_heard():
                        break
                except RedisError:
                    await asyncio.sleep(0.05)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await pubsub.aclose()  # type: ignore[no-untyped-call]


async def _is(heard: list[str], expected: list[str]) -> bool:
    return heard[: len(expected)] == expected


async def test_scripts_reach_a_server_that_never_saw_them(
    topology: Cluster | SentinelGroup, redis: Redis
) -> None:
    """A promoted replica knows no scripts; the first call teaches it."""
    store = RunStore(redis, timedelta(minutes=1))
    await store.register("c", "r", "Agent")
    master = await topology.master_for(keys_of("c").stream)
    await ask(master.port, "SCRIPT", "FLUSH")
    assert (await store.register("c", "r", "Agent")).status is RunStatus.PENDING


async def test_unfinished_runs_are_found_on_all_servers(
    topology: Cluster | SentinelGroup, redis: Redis
) -> None:
    """The walk over all keys sees each part of a cluster, and each run once."""
    await redis.flushall()
    store = RunStore(redis, timedelta(minutes=1))
    names = [f"c{number}" for number in range(30)]
    for name in names:
        await store.register(name, "r", "Agent")
    found = [state.conversation_id for state in await store.unfinished()]
    assert sorted(found) == sorted(names)
    assert topology.servers


async def test_everything_away_is_an_error_of_the_driver() -> None:
    """When no server answers, callers get the error that means Redis is away, on any topology."""
    for url in ("redis+cluster://127.0.0.1:1,127.0.0.1:2", "redis+sentinel://127.0.0.1:1,127.0.0.1:2/s"):
        client = connect(url)
        with pytest.raises(RedisError):
            await client.get("a")
        await client.aclose()


async def test_connections_that_are_closed_underneath_are_trouble_that_passes(redis: Redis) -> None:
    """After a failover the driver closes connections that commands are using: no other error comes of it."""
    await redis.set("a", "b")
    outcomes: list[object] = []
    for number in range(100):
        commands = [asyncio.ensure_future(redis.get("a")) for _ in range(20)]
        for _ in range(number % 7):
            await asyncio.sleep(0)
        await _close_connections(redis)
        outcomes += await asyncio.gather(*commands, return_exceptions=True)
    unexpected = [outcome for outcome in outcomes if outcome != b"b" and not isinstance(outcome, RedisError)]
    assert not unexpected


async def _close_connections(redis: Redis) -> None:
    """As the driver does it when the topology has changed."""
    if is_cluster(redis):
        await cast("ClusterClient", redis).nodes_manager.aclose()
    else:
        await redis.connection_pool.disconnect(inuse_connections=False)


async def test_first_commands_go_straight_to_their_node(cluster: Cluster) -> None:
    """A new client learns the slots before its first script: none is sent to a node that refuses it."""
    before = await _redirections(cluster)
    redis = connect(cluster.url)
    store = RunStore(redis, timedelta(minutes=1))
    await asyncio.gather(*(store.register(f"new{number}", "r", "Agent") for number in range(30)))
    await redis.aclose()
    assert await _redirections(cluster) == before


async def _redirections(cluster: Cluster) -> int:
    told = [await ask(port, "INFO", "errorstats") for port in cluster.servers]
    return sum(int(errors.get("errorstat_MOVED", {}).get("count", 0)) for errors in told)
