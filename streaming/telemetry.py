"""What the service tells of its own work: one interface of hooks, which do nothing unless a backend is there.

A composition root makes one ``Telemetry`` for the process and passes it on; backends are in
``bridges/telemetry``. No hook is given what was said, to or by an agent, and none is given a key or a token.
What becomes a metric's label is bounded: agents' names, statuses, codes, routes. Ids of conversations and
runs go into traces alone.

Hooks are called from several threads, must return at once and must not raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streaming.outage import Outage

#: What a span may be told: short words and numbers.
Facts = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class AttemptBegan:
    """One execution of a run has begun here."""

    agent: str
    conversation_id: str
    run: str
    attempt: int
    #: W3C ``traceparent`` of the request that started the run; empty where there is none.
    traceparent: str
    #: From the run's registration, in seconds; ``None`` for a later attempt.
    waited: float | None


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One execution of a run writes nothing more."""

    agent: str
    #: A terminal's status, or what ``streaming.writing.execution`` has besides.
    outcome: str
    seconds: float
    entries: int


@dataclass(frozen=True, slots=True)
class TerminalWritten:
    """A run's terminal is in the stream, whoever wrote it."""

    agent: str
    status: str
    #: Of the error; empty where there is none.
    code: str


@dataclass(frozen=True, slots=True)
class RequestBegan:
    """An HTTP request that is to be traced."""

    method: str
    #: With its variable parts as names.
    route: str
    #: As the client sent it; empty where it sent none.
    traceparent: str


@dataclass(frozen=True, slots=True)
class ReaderOpened:
    """A request for a stream that will be answered with one."""

    conversation_id: str
    route: str
    #: As the client sent it; empty where it sent none.
    traceparent: str
    #: Of the run that is read; empty where it is not known.
    run_traceparent: str
    #: Whether it came back with a cursor.
    resumed: bool
    #: When the request came, Unix time in nanoseconds.
    began: int


class Span:
    """Something that lasts, in a trace. This one is in none."""

    #: W3C ``traceparent``, for what is to follow it in the trace; empty where nothing is traced.
    traceparent: str = ""

    def make_current(self) -> None:
        """Let what the running task does from here on be part of it."""

    def end(self, outcome: str, facts: Facts | None = None) -> None:
        """It is over. Ending it again does nothing."""


#: Where nothing is traced.
NO_SPAN: Final = Span()


class Traces:
    """Traces of runs. These lead nowhere."""

    #: Whether it is worth asking Redis for a run's trace.
    is_on: bool = False

    def request(self, began: RequestBegan) -> Span:
        """A request, whose client may have a trace already."""
        del began
        return NO_SPAN

    def attempt(self, began: AttemptBegan) -> Span:
        """One execution of a run."""
        del began
        return NO_SPAN

    def reader(self, opened: ReaderOpened) -> Span:
        """A request for a stream, for as long as the stream lasts."""
        del opened
        return NO_SPAN

    def moment(self, name: str, traceparent: str, facts: Facts) -> None:
        """Something that happened to a run elsewhere than in an execution of it."""


class Telemetry:
    """Told of what happens. This one only logs that Redis is away."""

    def __init__(self, traces: Traces | None = None) -> None:
        """Trace with ``traces``; ``None``: not at all."""
        self.traces = traces or Traces()
        self.outage = Outage()

    # ── into the stream ──────────────────────────────────────────────────────────────────────────────

    def buffered(self, change: int) -> None:
        """So many entries more wait in writers' buffers. Called for each entry."""

    def appended(self, entries: int, seconds: float) -> None:
        """A batch is in Redis; the last round trip took so long. Called for each batch."""

    def append_retried(self) -> None:
        """A batch is sent once more: Redis failed, or did not answer."""

    def writer_refused(self, code: str) -> None:
        """The stream takes nothing more from an attempt: it is fenced, its run has ended, or is lost."""

    def lease_troubled(self, reason: str) -> None:
        """A lease was not renewed (``failed``), its run was ``forgotten``, or was ``never_begun``."""

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────

    def run_accepted(self, agent: str) -> None:
        """A run is registered, and its task hub was told."""

    def attempt_began(self, began: AttemptBegan) -> None:
        """An execution of a run has begun here."""

    def attempt_ended(self, ended: AttemptEnded) -> None:
        """An execution of a run that had begun here is over."""

    def terminal_written(self, terminal: TerminalWritten) -> None:
        """A run has its end."""

    def stream_restored(self) -> None:
        """A lost stream was rebuilt from the durable state."""

    # ── out of the stream ────────────────────────────────────────────────────────────────────────────

    def reader_opened(self, *, resumed: bool) -> None:
        """Somebody reads a stream, from a cursor (``resumed``) or from a start."""

    def reader_closed(self, *, cut_short: bool) -> None:
        """A read is over; ``cut_short``: its client is to come back."""

    def gap_told(self, reason: str) -> None:
        """A reader was told that entries are missing."""

    def reset_told(self, reason: str) -> None:
        """A reader was told to discard what it has."""

    def piece_delivered(self, entry_milliseconds: int) -> None:
        """A live piece was taken by the client's socket. Called for each piece of each reader.

        Args:
            entry_milliseconds: When its newest entry was appended: its id's Unix time.
        """

    # ── around it ────────────────────────────────────────────────────────────────────────────────────

    def redis_failed(self, at: str, error: BaseException) -> None:
        """Redis failed, or did not answer; ``at`` says in a word what was asked of it."""
        self.outage.failed(at, error)

    def redis_answered(self) -> None:
        """What had failed has succeeded."""
        self.outage.ended()

    def answered(self, route: str, status: int) -> None:
        """An HTTP request has its answer, or at least its head."""
