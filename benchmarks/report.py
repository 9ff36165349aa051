"""The results as JSON for programs and as Markdown for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.cases.case import FIGURES, Case
from benchmarks.contestants.contestant import Kind
from benchmarks.goals import Verdict, verdicts
from benchmarks.plan import Plan
from benchmarks.results import Results, Spread

#: Above this the load's cores are what is measured.
_BUSY_PERCENT = 90


def to_json(
    plan: Plan, machine: Mapping[str, str], cases: Sequence[Case], results: Results
) -> dict[str, Any]:
    """Everything, each round's figures included."""
    return {
        "plan": plan.name,
        "machine": dict(machine),
        "cases": {
            case.name: {"title": case.title, "rounds": results.rounds.get(case.name, {})} for case in cases
        },
        "goals": [
            {
                "case": verdict.goal.case,
                "variant": verdict.goal.variant,
                "figure": verdict.goal.figure,
                "goal": verdict.goal.text,
                "value": verdict.value,
                "limit": verdict.limit,
                "met": verdict.is_met,
            }
            for verdict in verdicts(results)
        ],
        "missing": results.missing,
    }


def to_markdown(plan: Plan, machine: Mapping[str, str], cases: Sequence[Case], results: Results) -> str:
    """Tables, each figure with its spread and its goals."""
    found = verdicts(results)
    lines = [f"# Results: the {plan.name} bench", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "Medians of the rounds, and from the least to the most where there were several.", ""]
    lines += _summary(found)
    for case in cases:
        if case.name in results.rounds:
            lines += ["", f"## {case.name}: {case.title}", "", *_table(case, results, found)]
    lines += ["", *_load_client(results)]
    if results.missing:
        lines += ["", "## Left out", ""]
        lines += [f"- {name}: {' '.join(why.split())}" for name, why in results.missing.items()]
    return "\n".join(lines) + "\n"


def _summary(found: Sequence[Verdict]) -> Iterator[str]:
    met = sum(verdict.is_met for verdict in found)
    yield f"Goals: {met} of {len(found)} met."
    missed = [verdict for verdict in found if not verdict.is_met]
    if missed:
        yield ""
        yield "Not met:"
        yield ""
    for verdict in missed:
        goal, figure = verdict.goal, FIGURES[verdict.goal.figure]
        yield (
            f"- {goal.case}, {goal.variant}: {figure.title} is {figure.text(verdict.value)} {figure.unit}, "
            f"wanted {_wanted(verdict)}"
        )


def _wanted(verdict: Verdict) -> str:
    figure = FIGURES[verdict.goal.figure]
    more = f" (that is {figure.text(verdict.limit)})" if verdict.goal.of_variant else ""
    return verdict.goal.text + more


def _table(case: Case, results: Results, found: Sequence[Verdict]) -> Iterator[str]:
    names = results.figures(case.name)
    heads = [f"{FIGURES[name].title}{_in(FIGURES[name].unit)}" for name in names]
    yield "| " + " | ".join(["", *heads]) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for name, variant in case.variants.items():
        if name not in results.rounds[case.name]:
            continue
        title = f"**{variant.title}**" if variant.kind is Kind.OURS else variant.title
        cells = [_cell(case.name, name, figure, results, found) for figure in names]
        yield "| " + " | ".join([title, *cells]) + " |"


def _in(unit: str) -> str:
    return f", {unit}" if unit else ""


def _cell(case: str, variant: str, figure: str, results: Results, found: Sequence[Verdict]) -> str:
    spread = results.spread(case, variant, figure)
    if spread is None:
        return "–"
    goals = [
        f"{verdict.goal.text}: {'met' if verdict.is_met else '**not met**'}"
        for verdict in found
        if (verdict.goal.case, verdict.goal.variant, verdict.goal.figure) == (case, variant, figure)
    ]
    return "<br>".join([_spread_text(figure, spread), *goals])


def _spread_text(name: str, spread: Spread) -> str:
    figure = FIGURES[name]
    if len(spread.values) == 1:
        return figure.text(spread.median)
    return f"{figure.text(spread.median)} ({figure.text(spread.low)}–{figure.text(spread.high)})"


def _load_client(results: Results) -> Iterator[str]:
    """Whether the load was what was slow."""
    yield "## Was the load client the bottleneck?"
    yield ""
    for case in ("live", "live_high", "fan", "many"):
        for variant in ("bare_sockets", "bare_asgi", "ours"):
            p50, load = (results.spread(case, variant, name) for name in ("p50_ms", "readers_load"))
            cores = results.spread(case, variant, "cores_load")
            if p50 and load and cores:
                warning = " **Too busy: this measures the load.**" if cores.median > _BUSY_PERCENT else ""
                yield (
                    f"- {case}, {variant}: p50 {p50.median:.2f} ms, the readers took {load.median:.0f} % of "
                    f"a core, the load's cores were {cores.median:.0f} % busy.{warning}"
                )
    capacity = results.spread("client", "bare_sockets", "received_per_s")
    if capacity:
        yield f"- By itself it takes {capacity.median:,.0f} chunks/s from the bare sockets."
