"""Measure from the command line: ``python -m benchmarks --plan quick --only live fan``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import machine, plots, report
from benchmarks.cases.case import Case
from benchmarks.cases.registry import all_cases
from benchmarks.plan import FULL, PLANS, Plan
from benchmarks.plant import Plant
from benchmarks.programs import ROOT, divided_cores
from benchmarks.results import Results
from benchmarks.runner import Runner

_RESULTS: Final = ROOT / "benchmarks" / "results"
_CACHE: Final = ROOT / ".bench"


def main() -> int:
    """Measure what the command line describes. Returns 1 if this project lost anything."""
    options = _parser().parse_args()
    plan = PLANS[options.plan]
    if options.rounds:
        plan = replace(plan, rounds=options.rounds, long_rounds=options.rounds)
    cases = chosen(all_cases(plan), options.only, options.contestants)
    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder, divided_cores() as cores:
        if cores.is_shared:
            _say("There is one core only: what is measured shares it with the load. Compare nothing.")
        plant = Plant(plan, Path(folder), options.cache.resolve(), cores)
        results = Runner(plant, _say).run(cases)
    where = options.results or (_RESULTS if plan.name == FULL.name else _RESULTS / plan.name)
    write_results(where, plan, described, cases, results)
    lost = list(results.lost())
    for each in lost:
        _say(f"Lost: {each}")
    return 1 if lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--plan", choices=PLANS, default=FULL.name, help="how much is measured")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="only these cases: live, write_100 …")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", help="only these: ours, bare_asgi …")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--results", type=Path, help="the folder to write to")
    parser.add_argument("--cache", type=Path, default=_CACHE, help="where peers are installed")
    return parser


def chosen(
    cases: Sequence[Case], names: Sequence[str] | None, contestants: Sequence[str] | None
) -> list[Case]:
    """The cases, and of those that compare contestants the contestants, that were asked for.

    Raises:
        SystemExit: there is no such case.
    """
    unknown = set(names or ()) - {case.name for case in cases}
    if unknown:
        known = ", ".join(case.name for case in cases)
        sys.exit(f"--only: there is no case {', '.join(sorted(unknown))}; there are {known}.")
    found = [case for case in cases if names is None or case.name in names]
    if contestants is None:
        return found
    return [
        replace(
            case,
            variants={
                name: variant
                for name, variant in case.variants.items()
                if variant.contestant is None or name in contestants
            },
        )
        for case in found
    ]


def write_results(
    folder: Path, plan: Plan, described: dict[str, str], cases: Sequence[Case], results: Results
) -> None:
    """Write JSON, Markdown and plots."""
    folder.mkdir(parents=True, exist_ok=True)
    told = report.to_json(plan, described, cases, results)
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    text = report.to_markdown(plan, described, cases, results)
    (folder / "results.md").write_text(text, encoding="utf-8")
    try:
        for chart in plots.charts(cases, results):
            plots.draw(chart, folder)
    except ImportError:
        _say("No plots: matplotlib is not installed (requirements-bench.txt has it).")
    _say(f"\n{text}\nWritten to {folder}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
