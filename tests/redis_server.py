"""Somebody else's Redis: a real server that tests start, kill, freeze and start again on its port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hosting.embedded.redis_server import find_server
from tests.service import PATIENCE, free_port


class RedisServer:
    """One server and its data folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Describe the server; ``options`` are those of its command line."""
        binary = find_server()
        if binary is None:
            pytest.skip("a Redis server is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        # fmt: off
        self._command = [
            str(binary.path), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(folder), *options,
        ]
        # fmt: on
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """A plain client for the test's own questions; it gives up fast."""
        return Redis.from_url(self.url, socket_timeout=PATIENCE, protocol=2)

    def spawn(self, *options: str) -> None:
        """Start the server's process without waiting for it."""
        self._process = subprocess.Popen([*self._command, *options], stdout=subprocess.DEVNULL)

    async def start(self, *options: str) -> None:
        """Start the server, also again, and wait until it answers."""
        self.spawn(*options)
        async with asyncio.timeout(PATIENCE), self.client() as redis:
            while not await _answers(redis):  # noqa: ASYNC110 - another process's doing sets no event here
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it on the spot: nothing more is written. Also one that is frozen, or has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def lose_the_last(self, size: int) -> None:
        """Cut so many bytes off the log of a server that was killed, as a machine that lost power does."""
        (log,) = (self.folder / "appendonlydir").glob("*.incr.aof")
        kept = log.read_bytes()
        assert len(kept) > size, "the log is no longer than what it is to lose"
        log.write_bytes(kept[:-size])


async def _answers(redis: Redis) -> bool:
    with contextlib.suppress(RedisError, OSError):
        return bool(await redis.ping())
    return False


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server that has not been started yet; killed at the end."""
    server = RedisServer(folder, *options)
    try:
        yield server
    finally:
        server.kill()
