"""What a trail holds: events, and the form in which they are published."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streaming.identifiers import EntryId
from streaming.text_joiner import storable

#: Characters of a stream event's text: far more than a chunk has. A tool's result may have megabytes.
TEXT_LIMIT: Final = 8_192
#: Characters of a run's whole answer.
RESPONSE_LIMIT: Final = 65_536
#: Characters of a run's message, which each of its events repeats when it is read.
REQUEST_LIMIT: Final = 2_048
#: Characters of an error's code or a call's id.
ID_LIMIT: Final = 256

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EventType(enum.StrEnum):
    """What an event tells."""

    #: A piece of the answer, or of its making.
    STREAM = "stream"
    #: The answer is complete.
    FINAL = "final"
    #: The run failed, was cancelled, or was interrupted.
    ERROR = "error"
    #: Events are missing here.
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Thread:
    """One agent's side of one conversation."""

    agent: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class TrailEvent:
    """One event of a run, as it happened."""

    #: Unix time in milliseconds.
    timestamp: int
    type: EventType
    #: Fields of the type.
    data: Mapping[str, Any]

    @property
    def closes(self) -> bool:
        """Whether it is the run's last one. Each run has one of these at most."""
        return self.type in (EventType.FINAL, EventType.ERROR)

    @property
    def size(self) -> int:
        """Characters of its texts, about."""
        return sum(len(value) for value in self.data.values() if isinstance(value, str))


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is read."""

    id: EntryId
    run: str
    #: The run's message; ``None``: not known.
    request: str | None
    event: TrailEvent

    def published(self, thread: Thread) -> dict[str, Any]:
        """The published form, and the event's id."""
        return {
            "timestamp": iso_time(self.event.timestamp),
            "agent_name": thread.agent,
            "thread_id": thread.conversation_id,
            "correlation_id": self.run,
            "request_message": self.request,
            "event_type": self.event.type.value,
            **self.event.data,
            "id": str(self.id),
        }


def missing_events(timestamp: int, count: int) -> TrailEvent:
    """Stands where so many events of a run are missing."""
    return TrailEvent(timestamp, EventType.DROPPED, {"dropped": count})


def bounded(text: str, limit: int) -> str:
    """Text that can be stored, cut to so many characters."""
    text = storable(text)
    return text if len(text) <= limit else text[:limit] + "…"


def iso_time(milliseconds: int) -> str:
    """A Unix time as ISO 8601 in UTC. With ``Z``: the ``+`` of an offset is a space in a URL's query."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_milliseconds(moment: datetime) -> int:
    """A time with a time zone as Unix time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
