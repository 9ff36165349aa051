"""What this project wants to reach, and whether a run of the bench shows that it does."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.cases.case import FIGURES
from benchmarks.results import Results

#: Those that are to be left behind wherever they were measured too.
_RIVALS: Final = ("published_sample", "blocking_readers", "agno", "durable_streams", "resumable_stream")
#: What counts as the same, where a figure must not grow: rounds differ by as much.
_SAME: Final = 1.25


class Way(enum.StrEnum):
    """In which direction a goal lies."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of one figure: a number, or a multiple of another contestant's figure of the same run."""

    case: str
    variant: str
    figure: str
    way: Way
    bound: float
    #: Of which variant, figure and case (its own, if empty) the bound is a multiple.
    of_variant: str = ""
    of_figure: str = ""
    of_case: str = ""

    @property
    def text(self) -> str:
        """The goal for people."""
        figure = FIGURES[self.figure]
        if not self.of_variant:
            return f"{self.way} {self.bound:,g}{' ' + figure.unit if figure.unit else ''}"
        factor = "" if self.bound == 1 else f"{self.bound:,g} × "
        of_figure = FIGURES[self.of_figure].title if self.of_figure else "that"
        return f"{self.way} {factor}{of_figure} of {self.of_variant}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, and what came of it."""

    goal: Goal
    value: float
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether the median is on the right side."""
        return self.value <= self.limit if self.goal.way is Way.AT_MOST else self.value >= self.limit


def _goals() -> Iterator[Goal]:
    most, least = Way.AT_MOST, Way.AT_LEAST
    yield Goal("write_100", "ours", "chunks_per_s", least, 100_000)
    yield Goal("write_100", "ours", "chunks_per_s", least, 100, "published_sample")
    yield Goal("write_100", "ours", "redis_us", most, 2, "plain_xadd")
    yield Goal("write_paced", "ours", "p50_ms", most, 1)
    yield Goal("write_paced", "ours", "p99_ms", most, 3)
    yield Goal("write_paced", "ours", "cpu_net_us", most, 20)
    yield Goal("live", "ours", "p50_ms", most, 1)
    yield Goal("live", "ours", "p99_ms", most, 3)
    yield Goal("live", "ours", "cpu_us", most, 25)
    yield Goal("live_high", "ours", "kept", least, 98)
    yield Goal("fan", "ours", "kept", least, 98)
    yield Goal("fan", "ours", "cpu_us", most, 15)
    yield Goal("fan", "ours", "p50_ms", most, 10)
    yield Goal("many", "ours", "memory_kb", most, 20)
    yield Goal("many", "ours", "p99_ms", most, 5)
    yield Goal("many", "ours", "redis_connections", most, 1, "ours", of_case="live")
    # So two processes take nearly twice as much, where there are the processors for it.
    yield Goal("workers", "two_processes", "cpu_us", most, 1.1, "ours")
    yield Goal("workers", "two_processes", "busiest_share", most, 60)
    yield Goal("replay", "ours", "received_per_s", least, 500_000)
    yield Goal("replay", "ours", "received_per_s", least, 2, "published_sample", "in_process_per_s")
    yield Goal("replay", "ours", "first_byte_ms", most, 5)
    yield Goal("replay_long", "ours", "first_byte_ms", most, 5)
    for variant in ("ours", "ours_stuck"):
        yield Goal("replay_long", variant, "memory_growth_mb", most, 32)
    for variant in ("one_by_one", "at_once"):
        yield Goal("runs", variant, "lost", most, 0)
    yield Goal("runs", "at_once", "start_p50_ms", most, 50)
    yield Goal("runs", "one_by_one", "added_p50_ms", most, 10)
    yield Goal("start", "service", "ready_s", most, 2)
    yield Goal("start", "function_app", "ready_s", most, 1.5)


def _ahead(results: Results) -> Iterator[Goal]:
    """Ahead of each rival that was there."""
    for case in ("live", "fan", "many"):
        for rival in _RIVALS:
            if rival in results.rounds.get(case, {}):
                yield Goal(case, "ours", "p50_ms", Way.AT_MOST, 1, rival)
                yield Goal(case, "ours", "cpu_us", Way.AT_MOST, 1, rival)


def _flat(results: Results) -> Iterator[Goal]:
    """The same at any size as at none."""
    for case in ("flat_write", "flat_length", "flat_conversations"):
        first, *larger = results.rounds.get(case, {"": []})
        for size in larger:
            yield Goal(case, size, "cpu_us", Way.AT_MOST, _SAME, first)
            if case != "flat_length":
                # One stream has too few appends a second to tell them from what Redis does by itself.
                yield Goal(case, size, "redis_us", Way.AT_MOST, _SAME, first)


def verdicts(results: Results) -> list[Verdict]:
    """What came of the goals that were measured."""
    found = []
    for goal in (*_goals(), *_ahead(results), *_flat(results)):
        value = results.spread(goal.case, goal.variant, goal.figure)
        limit = goal.bound
        if goal.of_variant:
            case, figure = goal.of_case or goal.case, goal.of_figure or goal.figure
            other = results.spread(case, goal.of_variant, figure)
            limit = goal.bound * other.median if other is not None else float("nan")
        if value is not None and limit == limit:  # noqa: PLR0124 - not a number: not measured
            found.append(Verdict(goal, value.median, limit))
    return found
