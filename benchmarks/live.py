"""From the append to the client's socket: latency, and what it costs."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plant import ROOT, Plant, Usage, running_plant

#: How long readers go on after the last chunk, in seconds.
AFTERWARDS = 1.5


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the service."""

    streams: int
    readers: int
    #: Chunks a second over all streams.
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. Times in milliseconds, processor time in microseconds, memory in kilobytes."""

    sent: int
    received: int
    out_of_order: int
    p50: float
    p99: float
    longest: float
    service_user: float
    service_system: float
    redis: float
    stored_p50: float
    stored_p99: float
    writer: float
    memory_of_a_reader: float
    redis_connections: int
    #: The reading process's share of a core: near 1 it is what is measured.
    readers_load: float

    @property
    def is_whole(self) -> bool:
        """Whether every reader got every chunk in order."""
        return self.out_of_order == 0


async def measure(load: Load) -> Result:
    """Measure on servers of its own.

    Raises:
        RuntimeError: the service did not start.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        async with running_plant(Path(folder)) as plant:
            return await asyncio.to_thread(_measure, plant, load)


def _measure(plant: Plant, load: Load) -> Result:
    writers = _start("writers", plant.redis_url, "bench", load.streams, load.rate, load.seconds)
    _expect(writers, "ready")
    before_readers = plant.service_memory()
    address, seconds = f"127.0.0.1:{plant.port}", load.seconds + AFTERWARDS
    readers = _start("readers", address, "bench", load.streams, load.readers, seconds)
    _expect(readers, "open")
    memory = plant.service_memory() - before_readers
    connections = plant.redis_connections()
    service, redis = plant.service_usage(), plant.redis_usage()
    _go(readers)
    _go(writers)
    written, seen = _outcome(writers), _outcome(readers)
    used = _since(service, plant.service_usage())
    redis_used = _since(redis, plant.redis_usage())
    sent, received = len(written["stored"]), len(seen["latencies"])
    latencies, stored = sorted(seen["latencies"]), sorted(written["stored"])
    return Result(
        sent=sent,
        received=received,
        out_of_order=seen["out_of_order"] + (received != sent * load.readers),
        p50=_share(latencies, 0.5) / 1e6,
        p99=_share(latencies, 0.99) / 1e6,
        longest=_share(latencies, 1) / 1e6,
        service_user=used.user / max(1, received) * 1e6,
        service_system=used.system / max(1, received) * 1e6,
        redis=redis_used.total / max(1, sent) * 1e6,
        stored_p50=_share(stored, 0.5) * 1e3,
        stored_p99=_share(stored, 0.99) * 1e3,
        writer=written["cpu"] / max(1, sent) * 1e6,
        memory_of_a_reader=memory / 1_024 / (load.streams * load.readers),
        redis_connections=connections,
        readers_load=seen["load"],
    )


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmarks.{program}", *(str(each) for each in arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _expect(process: subprocess.Popen[str], word: str) -> None:
    said = process.stdout.readline() if process.stdout else ""
    if said.strip() != word:
        raise RuntimeError(f"Expected {word!r} of {process.args!r}, got {said!r}.")


def _go(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.write("\n")
        process.stdin.flush()


def _outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    told, _ = process.communicate()
    return dict(json.loads(told))


def _since(before: Usage, after: Usage) -> Usage:
    return Usage(after.user - before.user, after.system - before.system)


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
