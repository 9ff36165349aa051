"""The one error tree of the Python client.

A message says what happened and what to do, and never holds a key or a token. ``cursor`` is where a stream
can be read on, where there is such a place.
"""

from __future__ import annotations

from datetime import timedelta


class ClientError(Exception):
    """Something went wrong between this program and the streaming service."""

    def __init__(self, message: str, *, code: str = "client_error", cursor: str | None = None) -> None:
        super().__init__(message)
        #: A stable word for programs: the service's own where it gave one.
        self.code = code
        #: Read on from here; ``None``: there is no such place.
        self.cursor = cursor

    @property
    def message(self) -> str:
        """The sentence a person may be shown."""
        return str(self.args[0])


class InvalidOption(ClientError):
    """An argument has a value that can't be used. Nothing was sent."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}", code="invalid_option")
        self.name = name


class RequestRefused(ClientError):
    """The service refused the request, for a reason that does not pass by itself."""

    def __init__(self, message: str, *, code: str, http_status: int, cursor: str | None = None) -> None:
        super().__init__(message, code=code, cursor=cursor)
        self.http_status = http_status


class InvalidRequest(RequestRefused):
    """A value of the request can't be used (400)."""


class InvalidCursor(InvalidRequest):
    """The cursor is not one that this stream has given out (400)."""


class AccessDenied(RequestRefused):
    """The key or token is missing or wrong (401), or opens another conversation (403)."""


class TokenExpired(AccessDenied):
    """The stream token has expired (401): get a new one, and read on from ``cursor``."""


class NotFound(RequestRefused):
    """There is no such agent, conversation or run: it never was, or it has expired (404)."""


class AgentNotFound(NotFound):
    """There is no agent of that name (404)."""


class ConversationNotFound(NotFound):
    """There is no stream for that conversation (404)."""


class RunNotFound(NotFound):
    """The conversation has no such run (404)."""


class UnexpectedAnswer(RequestRefused):
    """What answered does not speak this protocol: is ``base_url`` the streaming service?"""


class Unreachable(ClientError):
    """The service could not be reached, or brought nothing new, for as long as the client is patient.

    The run goes on without its reader: read on from ``cursor`` later.
    """

    def __init__(self, reason: str, *, after: timedelta, cursor: str | None = None) -> None:
        waited = f" for {after.total_seconds():.0f} s" if after else ""
        super().__init__(
            f"Nothing came from the service{waited}: {reason}.", code="unreachable", cursor=cursor
        )
        #: What the last attempt ended with.
        self.reason = reason
        #: How long nothing came.
        self.after = after


class OutcomeUnknown(ClientError):
    """The connection broke after the request was sent: the run may have been started, or not.

    It is not sent again by itself, since the agent would then work, and its tools act, twice.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The request was sent, and no answer came: {reason}. The run may have been started.",
            code="outcome_unknown",
        )


class RunFailed(ClientError):
    """The run ended without an answer. ``text`` is the part of it that there is."""

    def __init__(self, message: str, *, code: str, cursor: str | None = None, text: str = "") -> None:
        super().__init__(message, code=code, cursor=cursor)
        #: What the run had said, as far as the helper that raised this has read it.
        self.text = text


class RunInterrupted(RunFailed):
    """The process that executed the run is gone."""


class StreamLost(RunFailed):
    """The stream was deleted or has expired before the run ended. Its status may still have the answer."""


class AnswerIncomplete(ClientError):
    """Entries of the answer are no longer retained: ``text`` has a gap. The run's status has it whole."""

    def __init__(self, text: str, *, cursor: str | None) -> None:
        super().__init__(
            "Part of the answer is no longer retained in the stream. Ask for the run's status: it has all.",
            code="gap",
            cursor=cursor,
        )
        self.text = text
