"""Where trails are kept: what all stores do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridges.audit_trail.events import StoredEvent, Thread, TrailEvent
from streaming.identifiers import EntryId


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one execution of a run, in order and without a hole."""

    thread: Thread
    run: str
    #: Names the execution; the one with the greater name began later and has the run.
    execution: str
    #: The number of the first event, counted per execution from 0. A hole before it is stored as such.
    first: int
    events: Sequence[TrailEvent]
    #: The run's message; ``None``: not known.
    request: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are wanted: the oldest ``limit`` of those that fit."""

    limit: int
    #: Strictly after this event.
    after: EntryId | None = None
    #: From this Unix time in milliseconds on.
    since: int | None = None
    run: str | None = None

    def has(self, run: str, event: TrailEvent) -> bool:
        """Whether an event fits, wherever it is."""
        return self.run in (None, run) and (self.since is None or event.timestamp >= self.since)


class TrailStore(Protocol):
    """Keeps trails."""

    async def append(self, batch: Batch) -> bool:
        """Append events, each once, however often it is repeated.

        Returns whether more of this execution may come: not if the run is closed or deleted, or another
        execution has it.

        Raises:
            RedisError: Redis is away; append them again.
        """

    async def read(self, thread: Thread, wanted: Selection) -> list[StoredEvent]:
        """Read events, oldest first; none if there is no such trail.

        Raises:
            RedisError: Redis is away.
        """

    async def is_settled(self, thread: Thread, run: str) -> bool:
        """Whether nothing more of a run is to come: it is closed or deleted.

        Raises:
            RedisError: Redis is away.
        """

    async def delete(self, thread: Thread, runs: Collection[str]) -> None:
        """Delete a trail, and keep late events of its runs and of these runs from coming back.

        Raises:
            RedisError: Redis is away.
        """
