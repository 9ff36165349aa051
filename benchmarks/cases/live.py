"""Out of the stream: from the append to the clients' sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cases.case import Case, Figures, milliseconds, of_contestants
from benchmarks.contestants import (
    agno,
    bare_asgi,
    bare_sockets,
    blocking_readers,
    durable_streams,
    ours,
    published_sample,
    resumable_stream,
)
from benchmarks.contestants.contestant import Contestant, Load, Place, own_program
from benchmarks.plan import Plan
from benchmarks.plant import Plant, RedisAccount
from benchmarks.programs import Program, busy_seconds

_ALL = (
    ours.CONTESTANT,
    ours.UNREGISTERED,
    ours.FOREIGN,
    published_sample.CONTESTANT,
    blocking_readers.CONTESTANT,
    agno.CONTESTANT,
    durable_streams.CONTESTANT,
    resumable_stream.CONTESTANT,
    bare_asgi.CONTESTANT,
    bare_sockets.CONTESTANT,
)
_MANY = (
    ours.CONTESTANT,
    ours.UNREGISTERED,
    ours.FOREIGN,
    blocking_readers.CONTESTANT,
    durable_streams.CONTESTANT,
    bare_asgi.CONTESTANT,
)


@dataclass(frozen=True, slots=True)
class _Running:
    """The programs of a measurement."""

    server: Program
    writer: Program
    readers: list[Program]
    redis: RedisAccount


def cases(plan: Plan) -> list[Case]:
    """The cases of live reading."""
    seconds = plan.live_seconds
    two = replace(ours.CONTESTANT, name="two_processes", title="this project, WORKERS=2", server=ours.two)
    return [
        _case("live", Load(plan.live_streams, 1, plan.live_rate, seconds), _ALL),
        _case(
            "live_high",
            Load(plan.live_streams, 1, plan.live_rate_high, seconds),
            (ours.CONTESTANT, bare_asgi.CONTESTANT, bare_sockets.CONTESTANT),
        ),
        _case("fan", Load(1, plan.fan_readers, plan.fan_rate, seconds), _ALL),
        replace(_case("many", Load(plan.many_readers, 1, plan.many_rate, seconds), _MANY), is_long=True),
        replace(
            _case("workers", Load(plan.live_streams, 1, plan.workers_rate, seconds), (ours.CONTESTANT, two)),
            title=f"one and two processes on one port, {plan.workers_rate:,.0f} chunks/s",
        ),
        replace(
            _case(
                "client", Load(plan.live_streams, 1, plan.client_rate, seconds), (bare_sockets.CONTESTANT,)
            ),
            title=f"the load client alone: {plan.client_rate:,.0f} chunks/s asked of the bare sockets",
        ),
    ]


def _case(name: str, load: Load, contestants: tuple[Contestant, ...]) -> Case:
    streams = f"{load.streams:,} stream{'s' if load.streams > 1 else ''}"
    readers = f"{load.readers:,} reader{'s' if load.readers > 1 else ''}"
    title = f"{streams} × {readers}, {load.rate * load.readers:,.0f} chunks/s to sockets"
    return Case(name, title, of_contestants(contestants, lambda one, plant: measure(one, plant, load)))


def measure(
    contestant: Contestant, plant: Plant, load: Load, before: Callable[[Place], None] | None = None
) -> Figures:
    """Let a contestant serve on its own core, while its writer writes and readers read."""
    most = contestant.most_readers
    if most is not None and load.streams > most:
        load = replace(load, streams=most)
    with ExitStack() as stack:
        place, redis = stack.enter_context(plant.place())
        if before is not None:
            before(place)
        if contestant.server is None:
            raise ValueError(f"{contestant.name} does not serve.")
        command = contestant.server(place, load)
        server = stack.enter_context(plant.program(command, cores=plant.cores.measured))
        server.wait_for("ready")
        connections = redis.connections()
        writer, feeds = server, contestant.feeder or contestant.writer
        if feeds is not None:
            writer = stack.enter_context(plant.program(feeds(place, load)))
            writer.wait_for("ready")
        memory, connections = server.memory(), connections - redis.connections()
        readers = _open_readers(stack, plant, contestant, place, load)
        figures = {
            "memory_kb": (server.memory() - memory) / 1_024 / load.all_readers,
            # The server's; those of the writer were there before the readers.
            "redis_connections": float(connections + redis.connections()),
        }
        return figures | _take(plant, load, _Running(server, writer, readers, redis))


def _open_readers(
    stack: ExitStack, plant: Plant, contestant: Contestant, place: Place, load: Load
) -> list[Program]:
    """As many processes as the load's cores can do with."""
    processes = min(max(1, len(plant.cores.load) // 2), load.all_readers)
    readers = []
    for first in range(processes):
        command = own_program(
            "benchmarks.loads.readers",
            f"127.0.0.1:{place.port}",
            contestant.path,
            load.streams,
            load.all_readers,
            first,
            processes,
        )
        readers.append(stack.enter_context(plant.program(command)))
    for each in readers:
        each.wait_for("open")
    return readers


def _take(plant: Plant, load: Load, running: _Running) -> Figures:
    """Write and read."""
    began, busy_before = time.monotonic(), busy_seconds(plant.cores.load)
    each_before, redis_before = running.server.cpu_of_each(), running.redis.cpu()
    for each in running.readers:
        each.tell("go")
    running.writer.tell("go")
    written = running.writer.outcome()
    sent: list[int] = written["sent"]
    for each in running.readers:
        each.tell(json.dumps(sent))
    for each in running.readers:
        each.wait_for("over")
    took = time.monotonic() - began
    used = [after - before for after, before in zip(running.server.cpu_of_each(), each_before, strict=True)]
    cpu, redis_used = sum(used), running.redis.cpu() - redis_before
    busy = busy_seconds(plant.cores.load) - busy_before
    seen = [each.outcome() for each in running.readers]
    received = sum(len(each["latencies"]) for each in seen)
    figures = _of_readers(seen, sent, load)
    # From the first chunk's making to the last one's coming: what comes late counts for less.
    lasted = (max(each["last"] for each in seen) - min(each["first"] for each in seen)) / 1e9
    rate = received / max(load.seconds, lasted)
    return figures | {
        "received_per_s": rate,
        "kept": 100 * rate / (load.rate * load.readers),
        "cpu_us": cpu / max(1, received) * 1e6,
        "redis_us": redis_used / max(1, sum(sent)) * 1e6,
        "measured_load": 100 * cpu / took,
        **({"busiest_share": 100 * max(used) / cpu} if len(used) > 1 and cpu else {}),
        "cores_load": 100 * busy / took / len(plant.cores.load),
        # Where the server itself writes, it is its own load.
        **({"writer_load": 100 * written["cpu"] / written["took"]} if "cpu" in written else {}),
    }


def _of_readers(seen: list[dict[str, Any]], sent: list[int], load: Load) -> Figures:
    latencies = [latency / 1e6 for each in seen for latency in each["latencies"]]
    missing = sum(sent) * load.readers - len(latencies)
    return milliseconds(latencies) | {
        "longest_ms": max(latencies, default=0.0),
        "lost": sum(each["out_of_order"] for each in seen) + missing,
        "readers_load": 100 * max(each["load"] for each in seen),
    }
