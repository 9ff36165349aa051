"""Into the stream: how many chunks a second, how soon each is in Redis, and at what cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.cases.case import Case, Figures, milliseconds, of_contestants
from benchmarks.contestants import (
    agno,
    durable_streams,
    ours,
    plain_redis,
    published_sample,
    redis_benchmark,
    resumable_stream,
)
from benchmarks.contestants.contestant import Contestant, Load, Place
from benchmarks.plan import Plan
from benchmarks.plant import Plant

#: Runs, or streams, that are written at the same time by a fast model.
FEW, MANY = 1, 100
#: resumable-stream is made for a listener or two, and has one for each stream here.
_PEERS = (agno.CONTESTANT, durable_streams.CONTESTANT, resumable_stream.CONTESTANT)
_FLOORS = (plain_redis.CONTESTANT, redis_benchmark.CONTESTANT)


def cases(plan: Plan) -> list[Case]:
    """The cases of writing."""
    fast = (ours.CONTESTANT, published_sample.CONTESTANT, *_PEERS, *_FLOORS)
    paced = (ours.CONTESTANT, agno.CONTESTANT, durable_streams.CONTESTANT)

    def fast_case(streams: int) -> Case:
        load = Load(streams, seconds=plan.write_seconds)
        title = f"{streams} run{'s' if streams > 1 else ''}, the model as fast as it can"
        return Case(f"write_{streams}", title, of_contestants(fast, _measured_with(load)))

    load = Load(plan.paced_runs, rate=plan.paced_rate, seconds=plan.live_seconds)
    title = f"{load.streams:,} runs × {load.rate / load.streams:g} chunks/s, callback → in Redis"
    return [
        fast_case(FEW),
        fast_case(MANY),
        Case("write_paced", title, of_contestants(paced, _measured_with(load))),
    ]


def _measured_with(load: Load) -> Callable[[Contestant, Plant], Figures]:
    return lambda contestant, plant: measure(contestant, plant, load)


def measure(
    contestant: Contestant, plant: Plant, load: Load, before: Callable[[Place], None] | None = None
) -> Figures:
    """Let a contestant write on its own core; its CPU is the writer's, or the server's it writes to."""
    if contestant.writer is None:
        raise ValueError(f"{contestant.name} does not write.")
    with ExitStack() as stack:
        place, redis = stack.enter_context(plant.place())
        if before is not None:
            before(place)
        measured = None
        if contestant.writes_to_server and contestant.server is not None:
            command = contestant.server(place, load)
            measured = stack.enter_context(plant.program(command, cores=plant.cores.measured))
            measured.wait_for("ready")
        writer = stack.enter_context(
            plant.program(contestant.writer(place, load), cores=None if measured else plant.cores.measured)
        )
        writer.wait_for("ready")
        redis_before, before_cpu = redis.cpu(), measured.cpu() if measured else 0.0
        writer.tell("go")
        told = writer.outcome()
        cpu = measured.cpu() - before_cpu if measured else told["cpu"]
        redis_used = redis.cpu() - redis_before
    chunks = max(1, sum(told["sent"]))
    figures = {"chunks_per_s": chunks / told["took"], "cpu_us": cpu / chunks * 1e6}
    if "pacing" in told:
        figures["cpu_net_us"] = figures["cpu_us"] - told["pacing"] * 1e6
    if not contestant.writes_to_server:
        figures["redis_us"] = redis_used / chunks * 1e6
    if told.get("stored"):
        figures |= milliseconds(told["stored"])
    if load.rate:
        figures["kept"] = 100 * chunks / (load.rate * load.seconds)
    return figures
