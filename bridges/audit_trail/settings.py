"""Settings of the audit trail: docs/telemetry.md."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from streaming.environment import Environment, minutes, parts_of, positive_integer
from streaming.errors import SettingsError

#: Stands for all agents.
ALL_AGENTS: Final = "*"
#: Stands for none of them.
NO_AGENTS: Final = "none"
#: The agent whose trail the published sample shows.
DEFAULT_AGENTS: Final = ("CallbackAgent",)
#: More events of one thread than anybody reads, and than one answer should hold.
MOST_EVENTS: Final = 50_000


class StoreKind(enum.StrEnum):
    """Where trails are kept."""

    #: By all processes, and for longer than they live.
    REDIS = "redis"
    #: By this process, as long as it lives.
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class AuditTrailSettings:
    """Whose callbacks are kept, where, how many and for how long."""

    agents: tuple[str, ...] = DEFAULT_AGENTS
    store: StoreKind = StoreKind.REDIS
    #: Events of one thread; the oldest make room for newer ones.
    max_events: int = 5_000
    #: How long a trail is kept after its last event.
    ttl: timedelta = timedelta(days=1)

    def observes(self, agent: str) -> bool:
        """Whether an agent's callbacks are kept."""
        return agent in self.agents or ALL_AGENTS in self.agents

    def check_agents(self, hosted: Collection[str]) -> None:
        """Make sure that each agent is there. The default may name one that is not hosted.

        Raises:
            SettingsError: one is not.
        """
        unknown = [name for name in self.agents if name not in (*hosted, ALL_AGENTS)]
        if unknown and self.agents != DEFAULT_AGENTS:
            expected = f"expected agents ({', '.join(sorted(hosted))}), {ALL_AGENTS} for all, or {NO_AGENTS}."
            raise SettingsError("AUDIT_TRAIL_AGENTS", f"got {unknown[0]!r}, {expected}")

    @classmethod
    def read(cls, env: Environment) -> AuditTrailSettings:
        """Read them from the environment.

        Raises:
            SettingsError: a value can't be used.
        """
        read: dict[str, object] = {
            "agents": env.read("AUDIT_TRAIL_AGENTS", _agents),
            "store": env.read("AUDIT_TRAIL_STORE", _store),
            "max_events": env.read("AUDIT_TRAIL_MAX_EVENTS", _max_events),
            "ttl": env.read("AUDIT_TRAIL_TTL_MINUTES", minutes),
        }
        given: dict[str, Any] = {name: value for name, value in read.items() if value is not None}
        return cls(**given)


def _agents(value: str) -> tuple[str, ...]:
    names = parts_of(value)
    if not names:
        raise ValueError(f"got {value!r}, expected names of agents, {ALL_AGENTS} for all, or {NO_AGENTS}.")
    if NO_AGENTS not in names:
        return names
    if len(names) > 1:
        raise ValueError(f"got {value!r}, expected {NO_AGENTS} alone, or names of agents.")
    return ()


def _store(value: str) -> StoreKind:
    try:
        return StoreKind(value.lower())
    except ValueError:
        raise ValueError(f"got {value!r}, expected {' or '.join(StoreKind)}.") from None


def _max_events(value: str) -> int:
    number = positive_integer(value)
    if number > MOST_EVENTS:
        raise ValueError(f"got {value!r}, expected a whole number of events, at most {MOST_EVENTS}.")
    return number
