"""Metrics as every backend takes them: families of numbers, whatever counted them."""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

#: Before every metric's name.
PREFIX: Final = "agent_stream_"


class Kind(enum.Enum):
    """What a family's numbers are."""

    #: Only grows.
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Histogram:
    """How often a value lay between fixed bounds. Values are added on several threads.

    Exact all the same: the interpreter changes threads at calls and jumps, and not within the ``+=`` of an
    attribute or of a list's item.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count into ``bounds``: upper ones, each included, the last followed by all that is more."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, for all values of its labels."""

    #: Without the prefix, and without what a backend puts after it.
    name: str
    kind: Kind
    help: str
    #: As UCUM writes it; ``1`` for what is counted.
    unit: str = "1"
    labels: tuple[str, ...] = ()
    #: By the labels' values.
    numbers: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    histograms: Mapping[tuple[str, ...], Histogram] = field(default_factory=dict)
