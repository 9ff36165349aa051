"""What the store tells of runs."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.entries import RunStatus


@dataclass(frozen=True, slots=True)
class Renewal:
    """Where a run stood when its lease was renewed."""

    status: RunStatus
    attempt: int
    cancel_requested: bool
    #: Names the execution that began the attempt; empty: none has.
    owner: str
