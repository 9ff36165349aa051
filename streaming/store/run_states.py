"""What the store tells of runs."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from streaming.entries import RunStatus
from streaming.identifiers import keys_of


@dataclass(frozen=True, slots=True)
class RunState:
    """What is known of one run."""

    conversation_id: str
    run: str
    agent: str
    status: RunStatus
    #: 0 before the first attempt.
    attempt: int
    #: Entries of the current attempt so far.
    entries: int
    #: The run's entries come after this entry id.
    start: str
    #: The terminal's entry id.
    terminal: str | None
    #: Unix times in milliseconds, by the clock of Redis.
    created: int
    started: int | None
    ended: int | None
    #: W3C ``traceparent`` of what follows the request that started it; empty where nothing is traced.
    trace: str = ""


def decode_state(conversation_id: str, run: str, held: Mapping[str, str]) -> RunState:
    """Read the hash of a run's state.

    Raises:
        KeyError: a field is missing.
        ValueError: a field has a value that can't be one.
    """
    return RunState(
        conversation_id=conversation_id,
        run=run,
        agent=held["agent"],
        status=RunStatus(held["status"]),
        attempt=int(held["attempt"]),
        entries=int(held["next"]),
        start=held["start"],
        terminal=held.get("terminal"),
        created=int(held["created"]),
        started=_optional_int(held.get("started")),
        ended=_optional_int(held.get("ended")),
        trace=held.get("trace", ""),
    )


def _optional_int(value: str | None) -> int | None:
    return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to append to a run, until a later attempt takes it over."""

    conversation_id: str
    run: str
    number: int
    next_sequence: int
    cancel_requested: bool = False
    #: Names the execution that holds it: after a flush, two may have the same number.
    owner: str = ""
    #: The time when this was asked for, Unix time in milliseconds by the clock of Redis.
    began: int = field(default=0, compare=False)
    #: When the run was registered, by the same clock.
    created: int = field(default=0, compare=False)
    #: The run's ``RunState.trace``.
    trace: str = field(default="", compare=False)
    #: The stream's, the run's, the conversation's runs' and the wake-ups' names: each append needs them.
    names: tuple[str, str, str, str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        keys = keys_of(self.conversation_id)
        object.__setattr__(self, "names", (keys.stream, keys.run(self.run), keys.runs, keys.channel))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An attempt of which Redis has forgotten entries that it had acknowledged."""

    attempt: Attempt
    #: No entry of it that a reader may have has an id beyond this Unix time in milliseconds.
    newest: int


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What an append did. There is one for each chunk that comes alone."""

    #: Ids of the batch's entries in order; ``""`` for one that was stored before and is trimmed by now.
    entry_ids: list[str]
    cancel_requested: bool
    #: Whether it renewed the run's lease.
    lease_renewed: bool


class Settlement(enum.StrEnum):
    """What became of an attempt to end a run whose producer may be gone."""

    SETTLED = "settled"
    LAPSED = "lapsed"
    ALIVE = "alive"
    CHANGED = "changed"
    ENDED = "ended"
    LOST = "lost"


class Look(NamedTuple):
    """What a look at a run whose producer may be gone has shown."""

    settlement: Settlement
    #: The id of the stream's newest entry, if the producer is there; ``0-0``: it has none.
    newest: str | None


@dataclass(frozen=True, slots=True)
class Renewal:
    """Where a run stood when its lease was renewed."""

    status: RunStatus
    attempt: int
    cancel_requested: bool
    #: Names the execution that began the attempt; empty: none has.
    owner: str
