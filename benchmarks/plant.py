"""What is measured: a Redis and the service as it starts from the README, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis

from hosting.embedded.redis_server import EmbeddedRedis

ROOT: Final = Path(__file__).parents[1]
#: The service has one core to itself where there are two; everything else shares the others.
SERVICE_CORE: Final = 0
_CLOCK_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used of its processor so far, in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """Both."""
        return self.user + self.system


@dataclass(frozen=True, slots=True)
class Plant:
    """The running processes."""

    service: subprocess.Popen[str]
    port: int
    redis_url: str

    def service_usage(self) -> Usage:
        """By the kernel's account."""
        fields = Path(f"/proc/{self.service.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return Usage(int(fields[11]) * _CLOCK_TICK, int(fields[12]) * _CLOCK_TICK)

    def service_memory(self) -> int:
        """Its resident memory in bytes."""
        lines = Path(f"/proc/{self.service.pid}/status").read_text(encoding="ascii").splitlines()
        [line] = [line for line in lines if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1_024

    def redis_usage(self) -> Usage:
        """By its own account."""
        with Redis.from_url(self.redis_url) as redis:
            cpu = redis.info("cpu")
        return Usage(float(cpu["used_cpu_user"]), float(cpu["used_cpu_sys"]))

    def redis_connections(self) -> int:
        """Clients of the Redis, ours apart."""
        with Redis.from_url(self.redis_url) as redis:
            return len(redis.client_list()) - 1


@asynccontextmanager
async def running_plant(folder: Path) -> AsyncIterator[Plant]:
    """Start both, and end both."""
    async with EmbeddedRedis(folder / "redis") as redis:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        settings = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "REDIS_CONNECTION_STRING": redis.url,
            "DATA_DIR": str(folder / "data"),
            "LOG_LEVEL": "WARNING",
        }
        service = await asyncio.to_thread(_start, settings)
        try:
            yield Plant(service, port, redis.url)
        finally:
            service.kill()
            service.communicate()


def _start(settings: dict[str, str]) -> subprocess.Popen[str]:
    """Start the service and wait until it is ready."""
    command, environment = [sys.executable, "-m", "standalone"], {**os.environ, **settings}
    service = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    said = service.stdout.readline() if service.stdout else ""
    if not said.startswith("Ready"):
        service.kill()
        raise RuntimeError(f"The service did not start: {said!r}")
    _pin(service.pid)
    return service


def _pin(service: int) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2 or SERVICE_CORE not in cores:  # noqa: PLR2004 - nothing to share
        return
    for thread in Path(f"/proc/{service}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {SERVICE_CORE})
    # Redis was started from here, and follows no more; what is started from now on does.
    os.sched_setaffinity(0, cores - {SERVICE_CORE})
