"""Settings of the audit trail: docs/telemetry.md."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridges.audit_trail.settings import AuditTrailSettings, StoreKind
from streaming.environment import Environment
from streaming.errors import SettingsError

HOSTED = ("TravelPlanner", "CallbackAgent")


def read(**values: str) -> AuditTrailSettings:
    return AuditTrailSettings.read(
        Environment({f"AUDIT_TRAIL_{name}": value for name, value in values.items()})
    )


def test_nothing_set() -> None:
    """By default CallbackAgent is observed, in Redis, also where there is no such agent."""
    settings = read()
    assert settings == AuditTrailSettings()
    assert [settings.observes(agent) for agent in HOSTED] == [False, True]
    settings.check_agents(["MyAgent"])


@pytest.mark.parametrize(
    ("value", "observed"),
    [
        ("*", [True, True]),
        ("none", [False, False]),
        ("TravelPlanner", [True, False]),
        (" CallbackAgent , TravelPlanner ", [True, True]),
    ],
)
def test_agents(value: str, observed: list[bool]) -> None:
    """All agents, none, or those that are named."""
    settings = read(AGENTS=value)
    settings.check_agents(HOSTED)
    assert [settings.observes(agent) for agent in HOSTED] == observed


def test_the_others() -> None:
    """The store, how many events, and for how long."""
    settings = read(STORE="Memory", MAX_EVENTS="7", TTL_MINUTES="0.5")
    assert (settings.store, settings.max_events) == (StoreKind.MEMORY, 7)
    assert settings.ttl == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("AGENTS", ",", "got ',', expected names of agents, * for all, or none."),
        (
            "AGENTS",
            "none,CallbackAgent",
            "got 'none,CallbackAgent', expected none alone, or names of agents.",
        ),
        ("STORE", "disk", "got 'disk', expected redis or memory."),
        ("MAX_EVENTS", "50001", "got '50001', expected a whole number of events, at most 50000."),
        ("MAX_EVENTS", "0", "got '0', expected a whole number above 0."),
        ("TTL_MINUTES", "-1", "got '-1', expected a number of minutes, above 0, at most 527040."),
    ],
)
def test_what_can_not_be_used(name: str, value: str, problem: str) -> None:
    """A wrong value is refused with a sentence that names setting, value and remedy."""
    with pytest.raises(SettingsError) as refused:
        read(**{name: value})
    assert refused.value.message == f"AUDIT_TRAIL_{name}: {problem}"


def test_an_agent_that_is_not_there() -> None:
    """A name that no hosted agent has is refused with the names there are."""
    with pytest.raises(SettingsError) as refused:
        read(AGENTS="CallbackAgent,Nobody").check_agents(HOSTED)
    expected = "expected agents (CallbackAgent, TravelPlanner), * for all, or none."
    assert refused.value.message == f"AUDIT_TRAIL_AGENTS: got 'Nobody', {expected}"
