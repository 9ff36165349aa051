"""What can go wrong with the push; a branch of the one error tree."""

from __future__ import annotations

from streaming.errors import StreamingError


class PushUnavailable(StreamingError):
    """The SignalR service does not answer at the moment. Read the stream instead, or try again shortly."""

    code = "push_unavailable"
    http_status = 503


class PushRefused(PushUnavailable):
    """The SignalR service refused a request."""


class UnknownConnection(StreamingError):
    """The SignalR service has no such connection."""

    code = "connection_not_found"
    http_status = 404
