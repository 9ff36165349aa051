"""HTTP as the endpoints see it, whichever host they run on; and how errors are answered."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streaming.errors import (
    InvalidInput,
    StreamingError,
    StreamUnavailable,
    TaskHubUnavailable,
    TooManyRuns,
    TooManyStreams,
    Unauthorized,
)

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
#: Told to clients with a 503 or 429, in seconds: long enough for a failover, short enough to wait.
RETRY_AFTER_SECONDS: Final = "2"
_TEMPORARY: Final = (StreamUnavailable, TaskHubUnavailable, TooManyRuns, TooManyStreams)

_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request whose body is read already."""

    #: Variable parts of the path.
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    #: By lower-case name.
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: The address that the request came from; empty where the host does not tell.
    client: str = ""
    #: W3C ``traceparent`` of the span in which it is answered; empty where nothing is traced.
    trace: str = ""

    def accepts(self, media_type: str) -> bool:
        """Whether the ``Accept`` header names a media type."""
        return media_type in self.headers.get("accept", "").lower()

    @property
    def wants_plain_text(self) -> bool:
        """Whether a stream is wanted as bare text, not as server-sent events."""
        return self.accepts("text/plain") and not self.accepts("text/event-stream")

    @property
    def is_event_source_reconnect(self) -> bool:
        """Whether this may be an ``EventSource`` that comes back.

        It gives up for good at any status but 200, so trouble that passes must not be told by one.
        """
        return "last-event-id" in self.headers and not self.wants_plain_text


@dataclass(slots=True)
class DirectLine:
    """A host's own way to a client's socket, for pieces that need no task to wake up and send them."""

    #: Writes a piece of the body at once; ``False``: the client can't take it now. Only used while the host
    #: waits for the body's next piece. ``None``: the host has none, and all pieces come from the body.
    write: Callable[[bytes], bool] | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response; its body comes at once or piece by piece, each to be sent as it comes."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncGenerator[bytes, None] = b""
    #: Used beside a body that comes piece by piece, by hosts that can.
    direct: DirectLine | None = None


def json_response(status: int, content: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Answer with JSON."""
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return HttpResponse(status, {"content-type": JSON_TYPE, **(headers or {})}, body)


def error_response(error: StreamingError, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Answer with an error: ``error`` for people, ``code`` for programs."""
    told = dict(headers or {})
    if isinstance(error, _TEMPORARY):
        told["retry-after"] = RETRY_AFTER_SECONDS
    if isinstance(error, Unauthorized):
        told["www-authenticate"] = error.challenge
    return json_response(error.http_status, {"error": error.message, "code": error.code}, told)


def parse_flag(field_name: str, value: object) -> bool:
    """Read a yes or no.

    Raises:
        InvalidInput: it is neither.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE + _FALSE:
        return value.strip().lower() in _TRUE
    raise InvalidInput(field_name, value, "true or false")
