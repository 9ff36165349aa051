"""Measures all that a plan asks for: A, B, A, B, so that what changes on the machine changes for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cases.case import Case, Figures, Variant
from benchmarks.contestants.contestant import Unavailable
from benchmarks.plant import Plant
from benchmarks.programs import ProgramFailed
from benchmarks.results import Results


@dataclass(frozen=True, slots=True)
class Runner:
    """Measures cases and says how far it is."""

    plant: Plant
    say: Callable[[str], None]

    def run(self, cases: Sequence[Case]) -> Results:
        """Measure them all. One who can't be installed, or fails, is left out with a note."""
        results = Results()
        self._prepare(cases, results)
        for case in cases:
            self.say(f"\n{case.name}: {case.title}")
            plan = self.plant.plan
            for number in range(plan.long_rounds if case.is_long else plan.rounds):
                for name, variant in case.variants.items():
                    self._measure(case, name, variant, results, number)
        return results

    def _prepare(self, cases: Sequence[Case], results: Results) -> None:
        variants = {
            variant.contestant.name: variant.contestant
            for case in cases
            for variant in case.variants.values()
            if variant.contestant is not None
        }
        for name, contestant in variants.items():
            try:
                contestant.prepare(self.plant.cache)
            except Unavailable as why:
                results.missing[name] = str(why)
                self.say(f"{contestant.title} is left out: {why}")

    def _measure(self, case: Case, name: str, variant: Variant, results: Results, number: int) -> None:
        if variant.contestant is not None and variant.contestant.name in results.missing:
            return
        try:
            figures = variant.measure(self.plant)
        except (ProgramFailed, OSError) as why:
            results.missing[f"{case.name}, {name}, round {number + 1}"] = str(why)
            self.say(f"  {number + 1} {name:<18} failed: {why}")
            return
        results.add(case.name, name, figures)
        self.say(f"  {number + 1} {name:<18} {_brief(figures)}")


def _brief(figures: Figures) -> str:
    return "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())
