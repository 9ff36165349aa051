"""What is under load: a service process and its Redis, both of which can be broken and brought back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hosting.embedded.redis_server import find_server

_ROOT: Final = Path(__file__).parents[1]
#: A process that is not ready within this time, in seconds, has failed.
START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


class PlantError(Exception):
    """Something under test did not start."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Plant:
    """The running service and its Redis. Both keep their ports when they are restarted."""

    folder: Path
    words_per_second: str
    redis_port: int = field(default_factory=_free_port)
    service_port: int = field(default_factory=_free_port)
    _redis: asyncio.subprocess.Process | None = None
    _service: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Of the service."""
        return "http://{}:{}".format(*self.address)

    @property
    def address(self) -> tuple[str, int]:
        """Of the service."""
        return "127.0.0.1", self.service_port

    @property
    def redis_url(self) -> str:
        """Of its Redis."""
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def log_path(self) -> Path:
        """Where the service logs to."""
        return self.folder / "service.log"

    async def start_redis(self) -> None:
        """Start Redis, with what it has written."""
        server = find_server()
        if server is None:
            raise PlantError("There is no Redis or Valkey server on this machine.")
        # fmt: off
        command = [
            str(server.path), "--bind", "127.0.0.1", "--port", str(self.redis_port),
            "--dir", str(self.folder), "--logfile", "redis.log",
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
        ]
        # fmt: on
        self._redis = await asyncio.create_subprocess_exec(*command)
        async with Redis.from_url(self.redis_url) as redis:
            await _until(lambda: _answers(redis), "Redis")

    async def start_service(self) -> None:
        """Start the service, and wait until it is healthy."""
        settings = {
            "HOST": "127.0.0.1",
            "PORT": str(self.service_port),
            "REDIS_CONNECTION_STRING": self.redis_url,
            "DATA_DIR": str(self.folder / "data"),
            "DEMO_MODEL_WORDS_PER_SECOND": self.words_per_second,
        }
        with self.log_path.open("ab") as log:
            self._service = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "standalone",
                cwd=_ROOT,
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            await _until(lambda: _is_healthy(http), "the service")

    def signal_redis(self, number: signal.Signals) -> None:
        """Send Redis a signal."""
        if self._redis is not None:
            self._redis.send_signal(number)

    async def kill_redis(self) -> None:
        """End Redis without a warning."""
        await _kill(self._redis)

    async def kill_service(self) -> None:
        """End the service without a warning."""
        await _kill(self._service)

    def service_memory_mb(self) -> float:
        """The service's resident memory."""
        if self._service is None:
            return 0.0
        status = Path(f"/proc/{self._service.pid}/status")
        if not status.exists():
            return 0.0
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


@asynccontextmanager
async def running_plant(folder: Path, words_per_second: str) -> AsyncIterator[Plant]:
    """Service and Redis while inside."""
    plant = Plant(folder, words_per_second)
    try:
        await plant.start_redis()
        await plant.start_service()
        yield plant
    finally:
        await plant.kill_service()
        await plant.kill_redis()


async def _until(happened: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await happened():  # noqa: ASYNC110 - another process sets no event here
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise PlantError(f"{what} did not start within {START_SECONDS:g} s") from None


async def _answers(redis: Redis) -> bool:
    try:
        return bool(await redis.ping())
    except (RedisError, OSError):
        return False


async def _is_healthy(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/api/health")).status_code == 200
    except httpx.TransportError:
        return False


async def _kill(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()
