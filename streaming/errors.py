"""The one error tree.

Every error here may be shown to a client: its message names what was wrong and the remedy, and never
holds a stack trace, a driver's message or a secret. ``code`` is stable and meant for programs.
"""

from __future__ import annotations

from typing import ClassVar


class StreamingError(Exception):
    """Something went wrong in the streaming service."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])

    @property
    def message(self) -> str:
        """The sentence a person may be shown."""
        return str(self.args[0])


class SettingsError(StreamingError):
    """A setting has a value that can't be used."""

    code = "invalid_settings"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name


class InvalidInput(StreamingError):
    """A field of the request has a value that can't be used."""

    code = "invalid_request"
    http_status = 400

    def __init__(self, field: str, value: object, expected: str) -> None:
        shown = repr(value)
        if len(shown) > SHOWN_VALUE_LIMIT:
            shown = shown[:SHOWN_VALUE_LIMIT] + "…"
        super().__init__(f"{field} is {shown}: expected {expected}.")
        self.field = field


class InvalidCursor(InvalidInput):
    """The cursor is not one that this stream has given out."""

    code = "invalid_cursor"


class RequestTooLarge(StreamingError):
    """The request body is larger than this service accepts."""

    code = "request_too_large"
    http_status = 413


class RequestTimedOut(StreamingError):
    """The request's body did not come in time."""

    code = "request_timeout"
    http_status = 408


class HeadersTooLarge(StreamingError):
    """The request's line and headers are larger than this service accepts."""

    code = "headers_too_large"
    http_status = 431


class Unauthorized(StreamingError):
    """This needs a key or a token."""

    code = "unauthorized"
    http_status = 401

    def __init__(self, message: str, *, challenge: str) -> None:
        """``challenge`` is the answer's ``WWW-Authenticate``: what would be accepted."""
        super().__init__(message)
        self.challenge = challenge


class TokenExpired(Unauthorized):
    """The stream token has expired."""

    code = "token_expired"


class Forbidden(StreamingError):
    """The stream token is another conversation's."""

    code = "forbidden"
    http_status = 403


class AgentNotFound(StreamingError):
    """There is no agent of that name."""

    code = "agent_not_found"
    http_status = 404


class ConversationNotFound(StreamingError):
    """There is no stream for that conversation: it never began, or it has expired."""

    code = "conversation_not_found"
    http_status = 404


class RunNotFound(StreamingError):
    """The conversation has no such run: it never began, or it has expired."""

    code = "run_not_found"
    http_status = 404


class StreamUnavailable(StreamingError):
    """The stream store does not answer at the moment. Try again shortly."""

    code = "stream_unavailable"
    http_status = 503


class NotAStream(StreamingError):
    """The conversation's key in Redis holds something else than a stream. Use another conversation id."""

    code = "not_a_stream"
    http_status = 409


class TaskHubUnavailable(StreamingError):
    """The durable task hub does not answer at the moment. Try again shortly."""

    code = "task_hub_unavailable"
    http_status = 503


class TooManyStreams(StreamingError):
    """So many streams are open that this service takes no more. Try again shortly."""

    code = "too_many_streams"
    http_status = 503


class TooManyStreamsOfClient(TooManyStreams):
    """So many streams of your address are open that you get no more. Close one, or try again shortly."""

    http_status = 429


class TooManyRuns(StreamingError):
    """So many runs are in progress that this service takes no more. Try again shortly."""

    code = "too_many_runs"
    http_status = 503


class WaitTimedOut(StreamingError):
    """The run is still going on: read its stream, or ask for its status later."""

    code = "wait_timeout"
    http_status = 504


class WriterRefused(StreamingError):
    """The stream takes nothing more from this attempt of the run."""

    code = "writer_refused"


class AttemptFenced(WriterRefused):
    """A later attempt has taken over the run."""

    code = "attempt_fenced"


class RunEnded(WriterRefused):
    """The run has its terminal entry already."""

    code = "run_ended"


class RunLost(WriterRefused):
    """The run's state is gone from the stream store: it expired or was deleted."""

    code = "run_lost"


class SequenceGap(WriterRefused):
    """An append skipped a sequence number."""

    code = "sequence_gap"


#: Characters of a refused value that an error repeats: enough to recognise it, too few to flood a log.
SHOWN_VALUE_LIMIT = 80
