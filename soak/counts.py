"""What a soak counts, and the table that it prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

#: What must be zero.
DEFECTS: Final = ("lost", "doubled", "reordered", "hung", "wrong end")
#: Details that are kept of each kind of defect.
_DETAILS: Final = 10
#: Latencies are kept for so many events at most: enough for a percentile.
_LATENCIES: Final = 200_000


@dataclass(slots=True)
class Counts:
    """Counted by all conversations and readers of a soak."""

    runs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    defects: Counter[str] = field(default_factory=Counter)
    #: What a defect was, for whoever looks into it.
    details: list[str] = field(default_factory=list)
    #: These four by the kind of reader.
    readers: Counter[str] = field(default_factory=Counter)
    reconnects: Counter[str] = field(default_factory=Counter)
    resets: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    events: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def defect(self, kind: str, detail: str) -> None:
        """Count something that must not be."""
        self.defects[kind] += 1
        if self.defects[kind] <= _DETAILS:
            self.details.append(f"{kind}: {detail}")

    def latency(self, milliseconds: float) -> None:
        """Note how long an event took from Redis to its reader."""
        if len(self.latencies_ms) < _LATENCIES:
            self.latencies_ms.append(milliseconds)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that must not be."""
        return not self.defects.total()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies; 0 where there are none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def table(counts: Counts, more: Iterable[tuple[str, str]]) -> str:
    """The result of a soak, in Markdown."""
    rows = [
        *more,
        ("runs that ended", _listed(counts.runs)),
        ("reads", f"{counts.readers.total():,}, {counts.reconnects.total():,} resumes"),
        *((f"– {kind}", _of_kind(counts, kind)) for kind in sorted(counts.readers)),
        ("events received", f"{counts.events:,}"),
        ("faults inflicted", _listed(counts.faults)),
        (
            "Redis to reader, p50 / p99",
            f"{percentile(counts.latencies_ms, 0.5):.1f} / {percentile(counts.latencies_ms, 0.99):.1f} ms",
        ),
        *((f"**{kind}**", f"**{counts.defects[kind]}**") for kind in DEFECTS),
    ]
    return "\n".join(["| what | result |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _of_kind(counts: Counts, kind: str) -> str:
    told = f"{counts.readers[kind]:,}, {counts.reconnects[kind]:,} resumes"
    # What text() was given on its way is its own affair.
    return told if "text()" in kind else f"{told}, {counts.resets[kind]:,} resets, {counts.gaps[kind]:,} gaps"


def _listed(counter: Counter[str]) -> str:
    parts = ", ".join(f"{count} {name}" for name, count in counter.most_common())
    return f"{counter.total():,}: {parts}" if parts else "0"
