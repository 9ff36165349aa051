"""What a run of the bench tells: medians and spreads, goals met or not, who was left out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import plots, report
from benchmarks.__main__ import chosen
from benchmarks.cases.case import Case
from benchmarks.cases.registry import all_cases
from benchmarks.contestants.contestant import Contestant, Kind, Unavailable
from benchmarks.goals import verdicts
from benchmarks.peers import python_environment
from benchmarks.plan import FULL
from benchmarks.plant import Plant
from benchmarks.programs import Command, ProgramFailed
from benchmarks.results import Results
from benchmarks.runner import Runner


def _results(**p50: list[float]) -> Results:
    results = Results()
    for variant, values in p50.items():
        for value in values:
            results.add("live", variant, {"p50_ms": value, "cpu_us": 20.0})
    return results


def _live() -> list[Case]:
    return chosen(all_cases(FULL), ["live"], None)


def test_medians_and_spreads_are_told() -> None:
    """A figure of several rounds is their median, with the least and the most."""
    text = report.to_markdown(FULL, {}, _live(), _results(ours=[0.7, 0.5, 0.9]))
    assert "0.70 (0.50–0.90)" in text


@pytest.mark.parametrize(("p50", "said"), [(0.9, "≤ 1 ms: met"), (1.1, "≤ 1 ms: **not met**")])
def test_goals_stand_beside_their_figures(p50: float, said: str) -> None:
    """A goal is met or not by the median, and the figure's cell says which."""
    assert said in report.to_markdown(FULL, {}, _live(), _results(ours=[p50]))


def test_goals_against_others_count_only_where_they_were_measured() -> None:
    """To be ahead of a rival is a goal where the rival has figures in the same run."""
    alone = [verdict.goal.of_variant for verdict in verdicts(_results(ours=[1.0]))]
    beside = [
        verdict.is_met
        for verdict in verdicts(_results(ours=[1.0], agno=[0.9]))
        if verdict.goal.of_variant == "agno" and verdict.goal.figure == "p50_ms"
    ]
    assert not any(alone)
    assert beside == [False]


def test_a_loss_is_told_and_only_ours() -> None:
    """What this project lost fails the bench; what others lost is a figure."""
    results = Results()
    results.add("live", "ours", {"lost": 2})
    results.add("live", "agno", {"lost": 3})
    assert list(results.lost()) == ["live, ours: 2"]


def test_charts_have_a_bar_for_each_contestant() -> None:
    """A chart shows who was measured, in the case's order."""
    drawn = {chart.name: chart for chart in plots.charts(_live(), _results(agno=[0.9], ours=[1.0]))}
    assert [bar.kind for bar in drawn["live-p50_ms"].bars] == [Kind.OURS, Kind.PEER]


def test_an_installation_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that can't be installed says so in a sentence."""
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(Unavailable, match="false failed"):
        python_environment(tmp_path, "none", ["agno"])


def test_a_run_goes_on_without_those_that_are_missing(plant: Plant) -> None:
    """Who is not available, or fails, is named in the report with the reason; the others are measured."""

    def missing(_cache: Path) -> None:
        raise Unavailable("It is not sold here.")

    peer = Contestant(name="peer", title="A peer", kind=Kind.PEER, prepare=missing)
    [case] = _live()
    variant = case.variants["ours"]

    def fails(_plant: Plant) -> dict[str, float]:
        raise ProgramFailed("It fell over.")

    def measures(_plant: Plant) -> dict[str, float]:
        return {"p50_ms": 0.5}

    case = replace(
        case,
        variants={
            "peer": replace(variant, contestant=peer),
            "broken": replace(variant, contestant=None, measure=fails),
            "ours": replace(variant, contestant=None, measure=measures),
        },
    )
    results = Runner(plant, lambda _line: None).run([case])
    text = report.to_markdown(FULL, {}, [case], results)
    assert "- peer: It is not sold here." in text
    assert "- live, broken, round 1: It fell over." in text
    assert results.spread("live", "ours", "p50_ms") is not None


def test_a_program_that_dies_is_told_with_its_last_words(plant: Plant) -> None:
    """A program that ends before it is ready fails the measurement, and its log's end says why."""
    command = Command(["sh", "-c", "echo no such luck >&2; exit 3"])
    with plant.program(command) as program, pytest.raises(ProgramFailed, match="no such luck"):
        program.wait_for("ready")


def test_an_unknown_case_is_refused() -> None:
    """A case that is not there ends the command with a sentence that names those that are."""
    with pytest.raises(SystemExit, match="there is no case lve; there are write_1"):
        chosen(all_cases(FULL), ["lve"], None)
