"""Real Redis servers in the topologies that people run, on loopback."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hosting.embedded.redis_server import find_server
from tests.service import free_port

#: Bounds the start of a topology and each failover, in seconds. Reached only by what hangs.
PATIENCE: Final = 60.0
#: A node that is silent for so long (ms) is replaced: short, for short tests.
NODE_TIMEOUT: Final = 1_000
SERVICE: Final = "streams"
SLOTS: Final = 16_384
MASTERS: Final = 3
SENTINELS: Final = 3


@dataclass(slots=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    is_frozen: bool = False

    @property
    def can_answer(self) -> bool:
        """Whether it is there, and does not hang."""
        return self.process.poll() is None and not self.is_frozen

    def freeze(self) -> None:
        """Let it hang."""
        self.is_frozen = True
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.is_frozen = False
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Take it away without warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)


def valkey() -> Path:
    """The server that has all modes; skips the test where there is none."""
    found = find_server()
    if found is None:
        pytest.skip("a Redis server is not installed")
    return found.path


def start_server(binary: Path, folder: Path, *options: str, port: int | None = None) -> Server:
    """Start a server. Does not wait until it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = port or free_port()
    command = [str(binary), "--port", str(chosen), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    return Server(process, chosen)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


async def cut_replicas(master: Server, replicas: Sequence[Server]) -> None:
    """Let a master go on without its replicas, which hang. What it acknowledges from here on, only it has."""
    for replica in replicas:
        replica.freeze()
    # What is on its way to them would arrive after all.
    await ask(master.port, "CLIENT", "KILL", "TYPE", "replica")


async def ask(port: int, *command: str | int, **options: Any) -> Any:
    """One command to one server."""
    async with Redis(host="127.0.0.1", port=port, decode_responses=True, protocol=2, **options) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def wait_for(condition: Callable[[], Awaitable[bool]], description: str) -> None:
    """Wait for what a server tells only when it is asked."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if await condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline, f"never came true: {description}"
        await asyncio.sleep(0.02)


async def answers(port: int, **options: Any) -> bool:
    """Whether a server answers."""
    return bool(await ask(port, "PING", **options))


@dataclass(slots=True)
class Cluster:
    """Three masters with a replica each."""

    binary: Path
    folder: Path
    servers: dict[int, Server] = field(default_factory=dict)
    #: More options of each node, by its port.
    more: Callable[[int], list[str]] = lambda _port: []
    #: The port on which a node talks to the others.
    bus_ports: dict[int, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What a service is told."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.servers)

    def start_node(self, port: int) -> None:
        """Start a node, or start it again."""
        options = [
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT)),
            *("--cluster-config-file", "nodes.conf", "--cluster-replica-validity-factor", "0"),
            *("--cluster-port", str(self.bus_ports[port]), "--repl-diskless-sync-delay", "0"),
            *self.more(port),
        ]
        self.servers[port] = start_server(self.binary, self.folder / str(port), *options, port=port)

    async def start(self) -> None:
        """Start all nodes and make them a cluster."""
        free = free_ports(4 * MASTERS)
        self.bus_ports = dict(zip(free[::2], free[1::2], strict=True))
        for port in self.bus_ports:
            self.start_node(port)
        ports = list(self.servers)
        for port in ports:
            await wait_for(lambda port=port: answers(port), f"node {port} answers")  # type: ignore[misc]
        for number, port in enumerate(ports[:MASTERS]):
            await ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
            await ask(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for port in ports[1:]:
            await ask(port, "CLUSTER", "MEET", "127.0.0.1", ports[0], self.bus_ports[ports[0]])
        await wait_for(self._all_have_met, "all nodes know each other")
        for master, replica in zip(ports[:MASTERS], ports[MASTERS:], strict=True):
            await ask(replica, "CLUSTER", "REPLICATE", await ask(master, "CLUSTER", "MYID"))
        await self.wait_until_whole()

    async def _all_have_met(self) -> bool:
        known = [await ask(port, "CLUSTER", "NODES") for port in self.servers]
        return all(len(str(nodes).splitlines()) == len(self.servers) for nodes in known)

    async def wait_until_whole(self) -> None:
        """Wait until each master has a replica in step and all nodes agree on that."""
        await wait_for(self._is_whole, "the cluster is whole")

    async def _is_whole(self) -> bool:
        for port in self.servers:
            role = await ask(port, "ROLE")
            if role[0] == "slave" and role[3] != "connected":
                return False
            slots = await ask(port, "CLUSTER", "SLOTS")
            if len(slots) != MASTERS or any(len(entry) != 4 for entry in slots):
                return False
            if "cluster_state:ok" not in str(await ask(port, "CLUSTER", "INFO")):
                return False
        return True

    async def master_for(self, key: str) -> Server:
        """The node that has a key."""
        master, _ = await self._shard_of(key)
        return self.servers[master]

    async def _shard_of(self, key: str) -> tuple[int, list[int]]:
        """The ports of the master and of the replicas that have a key."""
        port = next(port for port, server in self.servers.items() if server.can_answer)
        slot = await ask(port, "CLUSTER", "KEYSLOT", key)
        for first, last, master, *replicas in await ask(port, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(master[1]), [int(replica[1]) for replica in replicas]
        raise AssertionError(f"nobody has slot {slot}")

    async def lose_master(self, key: str) -> None:
        """Take the master of a key away; its replicas go on."""
        (await self.master_for(key)).kill()
        for server in self.servers.values():
            server.resume()

    async def cut_replicas(self, key: str) -> None:
        """Let the master of a key go on without its replicas."""
        _, ports = await self._shard_of(key)
        await cut_replicas(await self.master_for(key), [self.servers[port] for port in ports])

    async def restore(self) -> None:
        """Start what was taken away, and wait until all is whole again."""
        for port, server in list(self.servers.items()):
            server.resume()
            if server.process.poll() is not None:
                self.start_node(port)
        await self.wait_until_whole()

    def stop(self) -> None:
        """Stop all nodes."""
        for server in self.servers.values():
            server.kill()


@dataclass(slots=True)
class SentinelGroup:
    """A master with two replicas, watched by three sentinels."""

    binary: Path
    folder: Path
    servers: dict[int, Server] = field(default_factory=dict)
    sentinels: list[Server] = field(default_factory=list)

    @property
    def url(self) -> str:
        """What a service is told."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    async def start(self) -> None:
        """Start everything."""
        master = self._start_server()
        await wait_for(lambda: answers(master), "the master answers")
        for _ in range(2):
            self._start_server("--replicaof", f"127.0.0.1 {master}")
        await wait_for(lambda: self._has_replicas(master), "the master has its replicas")
        for number in range(SENTINELS):
            self._start_sentinel(number, master)
        await wait_for(self._is_watched, "the sentinels know all")

    def _start_server(self, *options: str, port: int | None = None) -> int:
        options = ("--repl-diskless-sync-delay", "0", *options)
        chosen = port or free_port()
        server = start_server(self.binary, self.folder / str(chosen), *options, port=chosen)
        self.servers[server.port] = server
        return server.port

    def _start_sentinel(self, number: int, master: int) -> None:
        port, folder = free_port(), self.folder / f"sentinel{number}"
        folder.mkdir(parents=True)
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {NODE_TIMEOUT}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen([self.binary, str(config), "--sentinel"], stdout=log, stderr=log)
        self.sentinels.append(Server(process, port))

    @staticmethod
    async def _has_replicas(master: int) -> bool:
        known = await ask(master, "INFO", "replication")
        return [known.get(f"slave{number}", {}).get("state") for number in range(2)] == ["online"] * 2

    async def _is_watched(self) -> bool:
        for sentinel in self.sentinels:
            replicas = await ask(sentinel.port, "SENTINEL", "REPLICAS", SERVICE)
            others = await ask(sentinel.port, "SENTINEL", "SENTINELS", SERVICE)
            if len(replicas) != 2 or len(others) != SENTINELS - 1:
                return False
        return True

    async def master(self) -> Server:
        """The master, as a sentinel knows it."""
        _, port = await ask(self.sentinels[0].port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self.servers[int(port)]

    async def master_for(self, _key: str) -> Server:
        """The node that has a key: the master has all."""
        return await self.master()

    async def lose_master(self, _key: str) -> None:
        """Take the master away; its replicas go on."""
        (await self.master()).kill()
        for server in self.servers.values():
            server.resume()

    async def cut_replicas(self, _key: str) -> None:
        """Let the master go on without its replicas."""
        master = await self.master()
        others = [server for server in self.servers.values() if server is not master]
        await cut_replicas(master, others)

    async def restore(self) -> None:
        """Start what was taken away, and wait until all is whole again."""
        for port, server in list(self.servers.items()):
            server.resume()
            if server.process.poll() is not None:
                master = await self.master()
                self._start_server("--replicaof", f"127.0.0.1 {master.port}", port=port)
        await wait_for(self._is_whole, "the master has its replicas again")

    async def _is_whole(self) -> bool:
        return await self._has_replicas((await self.master()).port) and await self._is_watched()

    def stop(self) -> None:
        """Stop all."""
        for server in (*self.sentinels, *self.servers.values()):
            server.kill()


@contextmanager
def running(topology: Cluster | SentinelGroup) -> Iterator[Any]:
    """A topology while inside."""
    try:
        asyncio.run(topology.start())
        yield topology
    finally:
        topology.stop()
