"""Runs as the service tells of them: one that was started, and where one stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clients.answers import Answer


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was started."""

    agent: str
    conversation_id: str
    #: Its id; the service calls it ``correlation_id``.
    run: str
    #: With ``wait``: what it said.
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """Where a run stands."""

    #: ``Pending``, ``Running``, ``Completed``, ``Failed``, ``Canceled``; of a run that is being stopped
    #: ``Canceling``.
    status: str
    agent: str
    conversation_id: str
    run: str
    #: Executions so far; ``None``: no longer known.
    attempt: int | None = None
    entries: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: What it said, once it has ended.
    response: str | None = None
    error: str | None = None
    code: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of the run."""
        return self.status in ("Completed", "Failed", "Canceled")


def read_report(agent: str, content: Mapping[str, Any]) -> RunReport | None:
    """Read the service's JSON; ``None``: it is something else."""
    status, conversation_id, run = (_text(content, name) for name in _IDS)
    if status is None or conversation_id is None or run is None:
        return None
    return RunReport(
        status=status,
        agent=_text(content, "agent") or agent,
        conversation_id=conversation_id,
        run=run,
        attempt=_number(content, "attempt"),
        entries=_number(content, "entries"),
        created_at=_time(content, "created_at"),
        started_at=_time(content, "started_at"),
        ended_at=_time(content, "ended_at"),
        response=_text(content, "response"),
        error=_text(content, "error"),
        code=_text(content, "code"),
    )


_IDS = ("status", "conversation_id", "correlation_id")


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    return value if isinstance(value, str) else None


def _number(content: Mapping[str, Any], name: str) -> int | None:
    value = content.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(content: Mapping[str, Any], name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(_text(content, name) or "")
    except ValueError:
        return None
