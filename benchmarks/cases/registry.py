"""All cases, in the order in which they are measured and told."""

from __future__ import annotations

from benchmarks.cases import flat, live, replay, runs, start, write
from benchmarks.cases.case import Case
from benchmarks.plan import Plan


def all_cases(plan: Plan) -> list[Case]:
    """The cases, in the sizes of a plan."""
    return [case for module in (write, live, replay, runs, flat, start) for case in module.cases(plan)]
