"""Whether the cost of a chunk grows with what is there already: the stream's length, other conversations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from benchmarks.cases import live, write
from benchmarks.cases.case import Case, Figures, Variant
from benchmarks.contestants import ours
from benchmarks.contestants.contestant import Kind, Load, Place
from benchmarks.contestants.plain_redis import stream_key
from benchmarks.loads.prefill import fill_conversations, fill_stream
from benchmarks.plan import Plan
from benchmarks.plant import Plant

#: Readers begin at the latest run, not at the first of what is there already.
_LATEST: Final = replace(ours.CONTESTANT, path="/api/agent/stream/{stream}")


def cases(plan: Plan) -> list[Case]:
    """The cases of what must not grow."""
    one = Load(1, plan.flat_readers, plan.live_rate / plan.flat_readers, plan.flat_seconds)
    many = Load(plan.live_streams, 1, plan.live_rate, plan.flat_seconds)

    def written(before: Callable[[Place], None], plant: Plant) -> Figures:
        return write.measure(ours.CONTESTANT, plant, Load(1, seconds=plan.write_seconds), before)

    def read(load: Load, before: Callable[[Place], None], plant: Plant) -> Figures:
        return live.measure(_LATEST, plant, load, before)

    lengths = {length: partial(_fill_stream, length) for length in plan.flat_lengths}
    others = {count: partial(_fill_others, count) for count in plan.flat_conversations}
    return [
        _case(
            "flat_write",
            "one run, after so many entries in its stream",
            {length: partial(written, fill) for length, fill in lengths.items()},
        ),
        _case(
            "flat_length",
            f"one stream × {one.readers} readers, after so many entries in it",
            {length: partial(read, one, fill) for length, fill in lengths.items()},
        ),
        _case(
            "flat_conversations",
            f"{many.streams:,} streams × 1 reader, beside so many other conversations",
            {count: partial(read, many, fill) for count, fill in others.items()},
        ),
    ]


def _case(name: str, title: str, measures: dict[int, Callable[[Plant], Figures]]) -> Case:
    variants = {str(count): Variant(f"{count:,}", Kind.OURS, measure) for count, measure in measures.items()}
    return Case(name, title, variants, is_long=True)


def _fill_stream(length: int, place: Place) -> None:
    fill_stream(place.redis_url, stream_key(0), length, is_finished=True)


def _fill_others(count: int, place: Place) -> None:
    fill_conversations(place.redis_url, count)
