"""The driver's cluster client, that waits where it would fail, and subscriptions that survive a lost node."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Self

from redis.asyncio import ConnectionPool
from redis.asyncio.cluster import ClusterNode, PipelineCommand, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from streaming.cancellation import cancel_and_wait

#: A node that does not answer within this is not asked for the slots: it answers in a millisecond, and the
#: driver, which asks one node after another, would wait for one that hangs as long as for any command.
_PROBE_TIMEOUT: Final = timedelta(seconds=1)
#: A node's answer that another one is to be asked.
_MISDIRECTED: Final = (MovedError, AskError, TryAgainError, ClusterDownError)


class ClusterClient(RedisCluster):
    """A cluster client for thousands of streams over few connections."""

    def __init__(self, *, commands_at_once: int, turn_timeout: timedelta, **options: Any) -> None:
        """Describe the cluster; connects at the first command.

        Args:
            commands_at_once: At each node.
            turn_timeout: How long a command waits for its turn at its node.
            options: The driver's.
        """
        # Redirected commands use a connection to another node than they had their turn at.
        options["max_connections"] = 2 * commands_at_once
        # What a redirection says is enough: to learn all slots anew after some, the driver closes everything.
        super().__init__(reinitialize_steps=0, **options)
        self._commands_at_once = commands_at_once
        self._turn_timeout = turn_timeout.total_seconds()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._executing: set[asyncio.Task[Any] | None] = set()
        self._configured = dict(self.nodes_manager.startup_nodes)
        self._probing: asyncio.Task[None] | None = None

    async def initialize(self, *args: Any, **options: Any) -> Self:
        """Learn which node has which slots, where that is not known.

        Raises:
            RedisError: no node could say.
        """
        try:
            if self._initialize:
                await self._set_hanging_nodes_aside()
            _ = await super().initialize(*args, **options)
        except (RedisClusterException, AttributeError) as error:
            # The first is none of the driver's other errors: nobody would take it for Redis being away. The
            # second: see below.
            raise RedisConnectionError("No node of the cluster knows all of it.") from error
        return self

    async def _set_hanging_nodes_aside(self) -> None:
        """Let the driver ask only nodes that answer; with the slots it learns all nodes anew."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
            self._probing.add_done_callback(self._note_probed)
        await asyncio.shield(self._probing)

    def _note_probed(self, _probing: asyncio.Task[None]) -> None:
        self._probing = None

    async def _probe(self) -> None:
        # Those that were configured too: one that was set aside in vain may be the one that is back.
        nodes = {**self._configured, **self.nodes_manager.startup_nodes}
        if len(nodes) == 1:
            return
        asked = {asyncio.create_task(node.execute_command("PING")): node for node in nodes.values()}
        done, hanging = await asyncio.wait(asked, timeout=_PROBE_TIMEOUT.total_seconds())
        await cancel_and_wait(hanging)
        answering = [asked[task] for task in done if task.exception() is None]
        if answering:
            self.nodes_manager.startup_nodes = {node.name: node for node in answering}

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command.

        Raises:
            RedisError: Redis refused or did not answer.
        """
        # First, since without knowing the slots the driver would send a script to any node.
        _ = await self.initialize()
        try:
            return await super().execute_command(*args, **options)
        except RedisClusterException as error:
            raise RedisConnectionError("A part of the cluster is away.") from error

    async def _execute_command(self, target_node: ClusterNode, *args: Any, **options: Any) -> Any:
        """Wait for a turn: without a free connection the driver would fail. Only here the node is known."""
        try:
            async with self._turn_at(target_node):
                return await super()._execute_command(target_node, *args, **options)
        except AttributeError as error:
            # The driver closes connections of a node that it has lost, also those that are being opened.
            raise RedisConnectionError("The connection was closed.") from error

    @asynccontextmanager
    async def _turn_at(self, node: ClusterNode) -> AsyncIterator[None]:
        turns = self._turns.setdefault(node.name, asyncio.Semaphore(self._commands_at_once))
        try:
            async with asyncio.timeout(self._turn_timeout):
                await turns.acquire()
        except TimeoutError:
            raise RedisConnectionError("No connection to a node of the cluster is free.") from None
        task = asyncio.current_task()
        self._executing.add(task)
        try:
            yield
        finally:
            self._executing.discard(task)
            turns.release()

    async def execute_together(self, key: str, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands over one connection to the node that has ``key``. Gives their replies, errors too.

        Raises:
            RedisError: the node is away.
        """
        queue = [PipelineCommand(place, *command) for place, command in enumerate(commands)]
        try:
            node = await node_of(self, key)
            async with self._turn_at(node):
                await node.execute_pipeline(queue)
        except (RedisError, RedisClusterException, AttributeError, OSError) as error:
            await self._learn_topology(commands[0])
            raise RedisConnectionError("A part of the cluster is away.") from error
        if isinstance(queue[0].result, _MISDIRECTED):
            await self._learn_topology(commands[0])
        return [command.result for command in queue]

    async def _learn_topology(self, command: tuple[Any, ...]) -> None:
        """The ordinary way of a command follows redirections, and learns the slots anew."""
        with contextlib.suppress(RedisError):
            _ = await self.execute_command(*command)

    async def exists(self, *keys: Any) -> int:
        """Count those of the keys that exist, in one slot. The driver's own would make a pipeline of it."""
        return int(await self.execute_command("EXISTS", *keys))

    async def delete(self, *keys: Any) -> int:
        """Delete keys, in one slot, for the same reason. Returns how many there were."""
        return int(await self.execute_command("DEL", *keys))

    async def aclose(self) -> None:
        """Close all connections, also where the driver is about to learn the slots anew."""
        if asyncio.current_task() in self._executing:
            # The driver itself, for a command that found its slots nowhere: it learns them anew. All other
            # commands are in the middle of something.
            self._initialize = True
            return
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")


async def node_of(cluster: RedisCluster, key: str) -> ClusterNode:
    """The master that has a key.

    Raises:
        RedisError: nobody has it, as far as is known.
    """
    try:
        _ = await cluster.initialize()
        node = cluster.get_node_from_key(key)
    except RedisClusterException as error:
        raise RedisConnectionError("A part of the cluster is away.") from error
    if node is None:
        raise RedisConnectionError("A part of the cluster is away.")
    return node


class SubscriptionPool(ConnectionPool):
    """Connections to any node of a cluster, for its subscriptions."""

    @classmethod
    def beside(cls, cluster: RedisCluster) -> Self:
        """Make a pool with the cluster client's options."""
        options = dict(cluster.connection_kwargs)
        is_secure = options.pop("connection_class") is SSLConnection
        for name in ("response_callbacks", "max_connections", "himport_registry"):
            options.pop(name, None)
        kind = _AnyNodeSSLConnection if is_secure else _AnyNodeConnection
        return cls(connection_class=kind, cluster=cluster, retry=cluster.retry, **options)


class _AnyNodeConnection(Connection):
    """Looks for a node each time that it connects, and for another one than it has just lost."""

    def __init__(self, *, cluster: RedisCluster, **options: Any) -> None:
        super().__init__(**options)
        self._cluster = cluster

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect, unless connected."""
        if not self.is_connected:
            _ = await self._cluster.initialize()
            nodes = self._cluster.get_nodes()
            others = [node for node in nodes if (node.host, node.port) != (self.host, self.port)]
            node = random.choice(others or nodes)  # noqa: S311 - spreads subscriptions, keeps no secret
            self.host, self.port = node.host, int(node.port)
        await super().connect_check_health(*args, **options)


class _AnyNodeSSLConnection(_AnyNodeConnection, SSLConnection):
    """The same behind TLS."""
