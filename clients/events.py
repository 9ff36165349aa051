"""What a stream gives: one frozen dataclass for each kind of event, made from server-sent events.

The names and the data are the wire contract (docs/protocol.md, sections 2.3 and 6.2).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from streaming.sse import ServerSentEvent

#: The code of an error that is told by the reader, and is no entry.
STREAM_LOST: Final = "stream_lost"


class EndStatus(enum.StrEnum):
    """How a run ended that did not fail."""

    COMPLETED = "completed"
    #: Somebody stopped it; what it had said stays.
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One event of a stream."""

    kind: ClassVar[str] = "event"
    #: Read on strictly after this event; ``None``: nothing has an id yet.
    cursor: str | None

    def as_json(self) -> dict[str, Any]:
        """The event as JSON: its kind as ``event``, then its fields."""
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Text(StreamEvent):
    """A piece of the answer."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class Done(StreamEvent):
    """The run has ended and did not fail."""

    kind: ClassVar[str] = "done"
    status: EndStatus = EndStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class Failed(StreamEvent):
    """A run has failed, or was interrupted, and the stream goes on to later runs. Else this is raised."""

    kind: ClassVar[str] = "error"
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Reset(StreamEvent):
    """The answer starts again: discard what came of this run so far."""

    kind: ClassVar[str] = "reset"
    reason: str


@dataclass(frozen=True, slots=True)
class Gap(StreamEvent):
    """Entries are missing here: they are no longer retained."""

    kind: ClassVar[str] = "gap"
    reason: str


@dataclass(frozen=True, slots=True)
class ToolCall(StreamEvent):
    """The agent calls a tool."""

    kind: ClassVar[str] = "tool_call"
    call_id: str
    name: str
    #: As the model wrote them: most often a JSON object as text.
    arguments: Any


@dataclass(frozen=True, slots=True)
class ToolResult(StreamEvent):
    """What a tool answered; a long one is cut and ends with ``…``."""

    kind: ClassVar[str] = "tool_result"
    call_id: str
    result: Any


@dataclass(frozen=True, slots=True)
class Reasoning(StreamEvent):
    """What the model thinks."""

    kind: ClassVar[str] = "reasoning"
    text: str


@dataclass(frozen=True, slots=True)
class Usage(StreamEvent):
    """Token counts, by the model's names for them."""

    kind: ClassVar[str] = "usage"
    counts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Other(StreamEvent):
    """An event of a type that this client does not know. Ignore what you don't know either."""

    kind: ClassVar[str] = "other"
    type: str
    data: Any


def decode_event(event: ServerSentEvent, cursor: str | None, end: EndStatus) -> StreamEvent:
    """Make the typed event; what is missing or odd in its data is taken as leniently as can be.

    Args:
        event: As it came.
        cursor: Where to read on after it.
        end: How the run ended, if this is its ``done``.
    """
    if event.event == "message":
        return Text(event.data, cursor=cursor)
    if event.event == "done":
        return Done(end, cursor=cursor)
    data = _from_json(event.data)
    make = _MAKERS.get(event.event)
    if make is None:
        return Other(event.event, data, cursor=cursor)
    return make(data if isinstance(data, dict) else {}, cursor)


_Fields = dict[str, Any]
_MAKERS: Final[dict[str, Callable[[_Fields, str | None], StreamEvent]]] = {
    "error": lambda fields, cursor: Failed(
        _text(fields, "code") or "error", _text(fields, "message") or "The run failed.", cursor=cursor
    ),
    "reset": lambda fields, cursor: Reset(_text(fields, "reason"), cursor=cursor),
    "gap": lambda fields, cursor: Gap(_text(fields, "reason"), cursor=cursor),
    "tool_call": lambda fields, cursor: ToolCall(
        _text(fields, "call_id"), _text(fields, "name"), fields.get("arguments"), cursor=cursor
    ),
    "tool_result": lambda fields, cursor: ToolResult(
        _text(fields, "call_id"), fields.get("result"), cursor=cursor
    ),
    "reasoning": lambda fields, cursor: Reasoning(_text(fields, "text"), cursor=cursor),
    "usage": lambda fields, cursor: Usage(fields, cursor=cursor),
}


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else "" if value is None else str(value)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
