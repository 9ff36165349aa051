"""What a case is, and the figures that cases give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.contestants.contestant import Contestant, Kind
from benchmarks.plant import Plant

#: What one measurement gives, by the names in ``FIGURES``.
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One kind of figure."""

    title: str
    unit: str
    digits: int = 0

    def text(self, value: float) -> str:
        """The value for people."""
        return f"{value:,.{self.digits}f}"


FIGURES: Final[Mapping[str, Figure]] = {
    "chunks_per_s": Figure("written", "chunks/s"),
    "received_per_s": Figure("received", "chunks/s"),
    "kept": Figure("of what was asked", "%", 1),
    "p50_ms": Figure("p50", "ms", 2),
    "p99_ms": Figure("p99", "ms", 2),
    "longest_ms": Figure("longest", "ms", 1),
    "cpu_us": Figure("CPU a chunk", "µs", 1),
    "cpu_net_us": Figure("CPU a chunk without the pacing", "µs", 1),
    "redis_us": Figure("Redis' CPU a chunk", "µs", 1),
    "memory_kb": Figure("memory a reader", "KB", 1),
    "redis_connections": Figure("connections to Redis", ""),
    "lost": Figure("lost or out of order", ""),
    "measured_load": Figure("its own load", "% of a core"),
    "busiest_share": Figure("the busiest process's share", "% of its CPU", 1),
    "readers_load": Figure("the readers' load", "% of a core"),
    "writer_load": Figure("the writer's load", "% of a core"),
    "cores_load": Figure("the load's cores", "% busy"),
    "first_byte_ms": Figure("first byte", "ms", 2),
    "in_process_per_s": Figure("read in process", "chunks/s"),
    "memory_growth_mb": Figure("memory grew by", "MB", 1),
    "start_p50_ms": Figure("POST to start, p50", "ms", 1),
    "start_p99_ms": Figure("POST to start, p99", "ms", 1),
    "added_p50_ms": Figure("first chunk beyond the model, p50", "ms", 1),
    "added_p99_ms": Figure("first chunk beyond the model, p99", "ms", 1),
    "ready_s": Figure("until ready", "s", 2),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One of those that a case compares."""

    title: str
    kind: Kind
    measure: Callable[[Plant], Figures]
    #: Who has to be installed for it.
    contestant: Contestant | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One question, asked of several."""

    name: str
    title: str
    variants: Mapping[str, Variant]
    #: It takes long, so it is repeated less often.
    is_long: bool = False


def of_contestants(
    contestants: Sequence[Contestant], measure: Callable[[Contestant, Plant], Figures]
) -> dict[str, Variant]:
    """A case's variants where it compares contestants."""
    return {each.name: Variant(each.title, each.kind, partial(measure, each), each) for each in contestants}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of them is; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def milliseconds(values: Sequence[float], p50: str = "p50_ms", p99: str = "p99_ms") -> Figures:
    """Median and 99th percentile of values in milliseconds."""
    ordered = sorted(values)
    return {p50: percentile(ordered, 0.5), p99: percentile(ordered, 0.99)}
