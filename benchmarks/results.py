"""What was measured, in all rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.cases.case import FIGURES, Figures


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The most."""
        return max(self.values)


@dataclass(slots=True)
class Results:
    """By case and variant, each round's figures."""

    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    #: Why a variant is missing, or a round of it, by its name.
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, variant: str, figures: Figures) -> None:
        """Add a round."""
        self.rounds.setdefault(case, {}).setdefault(variant, []).append(figures)

    def spread(self, case: str, variant: str, figure: str) -> Spread | None:
        """A figure; ``None`` where it was not measured."""
        rounds = self.rounds.get(case, {}).get(variant, [])
        values = tuple(figures[figure] for figures in rounds if figure in figures)
        return Spread(values) if values else None

    def figures(self, case: str) -> list[str]:
        """The figures that any variant of a case has, in the order of ``FIGURES``."""
        found = {
            name for rounds in self.rounds.get(case, {}).values() for figures in rounds for name in figures
        }
        return [name for name in FIGURES if name in found]

    def lost(self) -> Iterator[str]:
        """Where this project lost something or brought it out of order."""
        for case, variants in self.rounds.items():
            for variant, rounds in variants.items():
                is_ours = variant.startswith("ours") or "ours" not in variants
                lost = sum(figures.get("lost", 0) for figures in rounds)
                if is_ours and lost and case != "client":
                    yield f"{case}, {variant}: {lost:.0f}"
