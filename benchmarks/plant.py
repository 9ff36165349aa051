"""Where a measurement takes place: a Redis of its own, and the programs around it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from redis import Redis

from benchmarks.contestants.contestant import Place
from benchmarks.plan import Plan
from benchmarks.programs import Command, Cores, Program
from hosting.embedded.redis_server import EmbeddedRedis


@dataclass(frozen=True, slots=True)
class RedisAccount:
    """A Redis, and what it says of itself."""

    url: str

    def cpu(self) -> float:
        """What it has used of its processor, in seconds."""
        with Redis.from_url(self.url) as redis:
            used = redis.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def connections(self) -> int:
        """How many clients it has, this question's own apart."""
        with Redis.from_url(self.url) as redis:
            return len(cast("list[object]", redis.client_list())) - 1


@dataclass(frozen=True, slots=True)
class Plant:
    """Starts what a measurement needs and ends it afterwards."""

    plan: Plan
    folder: Path
    #: Where peers are installed.
    cache: Path
    cores: Cores
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.contextmanager
    def redis(self) -> Iterator[RedisAccount]:
        """An empty Redis, as the service embeds it: with its append-only file."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            server = EmbeddedRedis(Path(folder))
            asyncio.run(server.start())
            try:
                yield RedisAccount(server.url)
            finally:
                asyncio.run(server.stop())

    @contextlib.contextmanager
    def program(self, command: Command, *, cores: frozenset[int] | None = None) -> Iterator[Program]:
        """A program; on those cores, else on those of the load."""
        started = Program(command, self.folder / f"{next(self._numbers)}.log", cores)
        try:
            yield started
        finally:
            started.stop()

    @contextlib.contextmanager
    def place(self) -> Iterator[tuple[Place, RedisAccount]]:
        """A Redis, a free port, and a folder."""
        with self.redis() as redis, tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Place(redis.url, free_port(), self.cache, Path(folder)), redis


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
