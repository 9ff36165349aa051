"""The dashboard and the alert rules ask for what there is, and the page says what that is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types of its own
from prometheus_client import CollectorRegistry

from bridges.telemetry.counts import Counts
from bridges.telemetry.families import PREFIX, Family, Kind
from bridges.telemetry.prometheus import PrometheusMetrics
from tests.service import ROOT

_GRAFANA: Final = ROOT / "docs" / "grafana"
#: What Prometheus adds to every metric, and a histogram's own.
_COMMON: Final = {"job", "instance", "le"}
#: Of the process itself, and of Prometheus.
_OTHERS: Final = {"process_cpu_seconds_total", "process_resident_memory_bytes", "up"}
_SUFFIXES: Final = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_count", "_sum"),
}


def series() -> dict[str, set[str]]:
    """What can be asked for, by name, with its labels."""
    return {
        f"{PREFIX}{family.name}{suffix}": {*family.labels} | _COMMON
        for family in Counts().families()
        for suffix in _SUFFIXES[family.kind]
    } | dict.fromkeys(_OTHERS, _COMMON)


def dashboard() -> dict[str, Any]:
    return dict(json.loads((_GRAFANA / "dashboard.json").read_text(encoding="utf-8")))


def expressions() -> Iterator[str]:
    """Everything that the dashboard and the rules ask."""
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    rules = yaml.safe_load((_GRAFANA / "alerts.yml").read_text(encoding="utf-8"))
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_what_is_asked_for_is_there(expression: str) -> None:
    """Every metric of an expression is one that the service has, and so is every label."""
    known = series()
    names = re.findall(r"\b(agent_stream_\w+|process_\w+|up(?=\{))", expression)
    assert names
    assert set(names) <= known.keys()
    for name, selector in re.findall(r"\b(agent_stream_\w+|process_\w+|up)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)(?:=~|!=|=)\"", selector)) <= known[name]
    labels = set.union(*(known[name] for name in names))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouped)) <= labels


def test_the_names_are_those_that_are_served() -> None:
    """What the tests take for the names is what Prometheus is given."""
    registry: CollectorRegistry = PrometheusMetrics(Counts().families)._registry
    served = {metric.name for metric in registry.collect() if metric.name.startswith(PREFIX)}
    assert served == {PREFIX + family.name for family in Counts().families()}


def test_every_metric_is_on_the_dashboard() -> None:
    """Whatever is counted can be seen."""
    asked = " ".join(expressions())
    missing = [family.name for family in Counts().families() if PREFIX + family.name not in asked]
    assert missing == []


def test_panels_have_their_own_place() -> None:
    """Each panel has an id of its own and a title, and none lies on another."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def described(family: Family) -> str:
    """A metric's row in the page."""
    suffix = "_total" if family.kind is Kind.COUNTER else ""
    return f"| `{PREFIX}{family.name}{suffix}` | {family.kind.value} |"


def test_every_metric_is_described() -> None:
    """The page has a row for each metric, with its kind and its labels."""
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    for family in Counts().families():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        assert f"{described(family)} {labels} |".replace("  ", " ") in page, family.name
    rows = re.findall(rf"^\| `{PREFIX}\w+` \|", page, re.MULTILINE)
    assert len(rows) == len(Counts().families())


def test_every_alert_is_described() -> None:
    """The page says what to do about each alert."""
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    rules = yaml.safe_load((_GRAFANA / "alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        assert [rule["alert"] for rule in group["rules"] if f"| `{rule['alert']}` |" not in page] == []
