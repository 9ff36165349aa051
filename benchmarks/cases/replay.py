"""A finished stream, read again over HTTP from its start."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from benchmarks.cases.case import Case, Figures, Variant, of_contestants
from benchmarks.contestants import agno, blocking_readers, durable_streams, ours, published_sample
from benchmarks.contestants.contestant import Contestant, Load, Place, own_program
from benchmarks.contestants.plain_redis import stream_key
from benchmarks.loads.pacing import stream_name
from benchmarks.plan import Plan
from benchmarks.plant import Plant
from benchmarks.programs import Program

_ALL = (
    ours.CONTESTANT,
    published_sample.CONTESTANT,
    blocking_readers.CONTESTANT,
    agno.CONTESTANT,
    durable_streams.CONTESTANT,
)
#: For how long a client that is stuck stops reading, in seconds. A service that goes on reading for it grows.
_STUCK: Final = 1.0


def cases(plan: Plan) -> list[Case]:
    """The cases of reading again."""

    def measured(contestant: Contestant, plant: Plant) -> Figures:
        return measure(contestant, plant, plan.replay_chunks, plan.replay_times)

    filler = partial(own_program, "benchmarks.loads.prefill")
    long = replace(
        ours.CONTESTANT,
        filler=lambda place, chunks: filler(place.redis_url, stream_key(0), chunks),
    )
    chunks = plan.long_replay_chunks
    return [
        Case("replay", f"an answer of {plan.replay_chunks:,} chunks", of_contestants(_ALL, measured)),
        Case(
            "replay_long",
            f"a stream of {chunks:,} chunks",
            {
                "ours": Variant(long.title, long.kind, lambda plant: measure(long, plant, chunks, 1)),
                "ours_stuck": Variant(
                    f"the same, to a client that is stuck for {_STUCK:g} s",
                    long.kind,
                    lambda plant: measure(long, plant, chunks, 1, pause=_STUCK),
                ),
            },
            is_long=True,
        ),
    ]


def measure(contestant: Contestant, plant: Plant, chunks: int, times: int, pause: float = 0) -> Figures:
    """Let a contestant serve a finished stream, so many times."""
    if contestant.server is None or contestant.filler is None:
        raise ValueError(f"{contestant.name} has nothing to read again.")
    with ExitStack() as stack:
        place, _ = stack.enter_context(plant.place())
        command = contestant.server(place, Load(streams=1))
        server = stack.enter_context(plant.program(command, cores=plant.cores.measured))
        server.wait_for("ready")
        filler = stack.enter_context(plant.program(contestant.filler(place, chunks)))
        filler.outcome()
        server.forget_peak()
        memory = server.memory()
        # Once without looking at the time: what is made for the first request is made.
        _read(stack, plant, contestant, place, chunks=chunks, times=1).outcome()
        cpu_before = server.cpu()
        reader = _read(stack, plant, contestant, place, chunks=chunks, times=times, pause=pause)
        told = reader.outcome()
        cpu, grown = server.cpu() - cpu_before, server.memory_peak() - memory
        figures = {
            "received_per_s": chunks / statistics.median(told["took"]),
            "first_byte_ms": statistics.median(told["first_bytes"]) * 1e3,
            "cpu_us": cpu / (chunks * times) * 1e6,
            "memory_growth_mb": max(0, grown) / 1_048_576,
            "lost": told["lost"],
        }
        if contestant.in_process_reader is not None:
            # On the core of what is measured, which has nothing else to do now.
            command = contestant.in_process_reader(place, times)
            program = stack.enter_context(plant.program(command, cores=plant.cores.measured))
            figures["in_process_per_s"] = statistics.median(program.outcome()["rates"])
        return figures


def _read(
    stack: ExitStack,
    plant: Plant,
    contestant: Contestant,
    place: Place,
    *,
    chunks: int,
    times: int,
    pause: float = 0,
) -> Program:
    path = contestant.path.format(stream=stream_name(0))
    command = own_program("benchmarks.loads.replayer", f"127.0.0.1:{place.port}", path, chunks, times, pause)
    return stack.enter_context(plant.program(command))
