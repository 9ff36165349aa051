"""The results as plots: a picture a case, with a bar for each contestant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.cases.case import FIGURES, Case
from benchmarks.contestants.contestant import Kind
from benchmarks.results import Results, Spread

#: Which figures of which cases are drawn.
DRAWN: Final = (
    ("write_100", "chunks_per_s"),
    ("live", "p50_ms"),
    ("live", "p99_ms"),
    ("live", "cpu_us"),
    ("fan", "p50_ms"),
    ("fan", "cpu_us"),
    ("many", "memory_kb"),
    ("replay", "received_per_s"),
)
_COLORS: Final = {Kind.OURS: "#d95f02", Kind.NAIVE: "#999999", Kind.FLOOR: "#1b9e77", Kind.PEER: "#7570b3"}
#: The longest bar against the shortest, from which on a plain axis would show the longest only.
_WIDE: Final = 20
_WIDTH: Final = 8.0
_ROW_HEIGHT: Final = 0.34
_DOTS_PER_INCH: Final = 90


@dataclass(frozen=True, slots=True)
class Bar:
    """One contestant's figure."""

    label: str
    kind: Kind
    spread: Spread


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture."""

    name: str
    title: str
    axis: str
    bars: Sequence[Bar]

    @property
    def is_logarithmic(self) -> bool:
        """Whether the bars would not fit on a plain axis."""
        medians = [bar.spread.median for bar in self.bars]
        return min(medians) > 0 and max(medians) > _WIDE * min(medians)


def charts(cases: Sequence[Case], results: Results) -> list[Chart]:
    """What there is to draw."""
    found = []
    for case in cases:
        for name, figure in DRAWN:
            if name != case.name:
                continue
            bars = [
                Bar(each.title, each.kind, spread)
                for variant, each in case.variants.items()
                if (spread := results.spread(name, variant, figure)) is not None
            ]
            if bars:
                axis = f"{FIGURES[figure].title}, {FIGURES[figure].unit}"
                found.append(Chart(f"{name}-{figure}", case.title, axis, bars))
    return found


def draw(chart: Chart, folder: Path) -> Path:
    """Draw it as PNG.

    Raises:
        ImportError: matplotlib is not installed; requirements-bench.txt has it.
    """
    # By name: the service and its tests have no matplotlib.
    pyplot: Any = import_module("matplotlib.pyplot")
    height = 1.2 + _ROW_HEIGHT * len(chart.bars)
    figure, axes = pyplot.subplots(figsize=(_WIDTH, height), dpi=_DOTS_PER_INCH, layout="constrained")
    for row, bar in enumerate(chart.bars):
        spread = bar.spread
        ends = [[spread.median - spread.low], [spread.high - spread.median]]
        axes.barh(row, spread.median, color=_COLORS[bar.kind], xerr=ends, ecolor="#333333")
        axes.text(spread.high, row, f"  {spread.median:,.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log" if chart.is_logarithmic else "linear")
    axes.margins(x=0.15)
    axes.set_xlabel(chart.axis + (" (logarithmic)" if chart.is_logarithmic else ""), fontsize=8)
    axes.set_title(chart.title, fontsize=9)
    path = folder / f"{chart.name}.png"
    figure.savefig(path)
    pyplot.close(figure)
    return path
