"""Counts what happens, in plain numbers that backends read when they are asked.

What is called for each chunk costs some hundred nanoseconds and takes no lock; the rest takes one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from time import time
from typing import Final

from typing_extensions import override

from bridges.telemetry.families import Family, Histogram, Kind
from streaming.telemetry import AttemptBegan, AttemptEnded, Telemetry, TerminalWritten, Traces

#: Values of labels that one metric has at most; what comes beyond is counted as ``other``. Agents, statuses
#: and codes are few: more of them are a mistake, which must not fill a memory.
MOST_SERIES: Final = 200
OTHER: Final = "other"

#: Upper bounds in seconds. A round trip to Redis; then a chunk's way to the socket, with a slow client's.
ROUND_TRIP_BOUNDS: Final = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
LATENCY_BOUNDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
#: A run takes seconds to hours.
RUN_BOUNDS: Final = (
    *(0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0),
)
WAIT_BOUNDS: Final = (*(0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),)

_Labels = tuple[str, ...]


class Counts(Telemetry):
    """Counts for one process."""

    def __init__(self, traces: Traces | None = None) -> None:
        super().__init__(traces)
        self._lock = threading.Lock()
        self._counted: defaultdict[str, dict[_Labels, int]] = defaultdict(dict)
        self._run_seconds: dict[_Labels, Histogram] = {}
        self._wait_seconds = Histogram(WAIT_BOUNDS)
        self._buffered = 0
        self._appends = 0
        self._entries = 0
        self._retries = 0
        self._append_seconds = Histogram(ROUND_TRIP_BOUNDS)
        self._delivery_seconds = Histogram(LATENCY_BOUNDS)

    # ── for each chunk: no lock, few calls ───────────────────────────────────────────────────────────

    @override
    def buffered(self, change: int) -> None:
        self._buffered += change

    @override
    def appended(self, entries: int, seconds: float) -> None:
        self._appends += 1
        self._entries += entries
        into = self._append_seconds
        into.counts[bisect_left(ROUND_TRIP_BOUNDS, seconds)] += 1
        into.total += seconds

    @override
    def piece_delivered(self, entry_milliseconds: int) -> None:
        seconds = time() - entry_milliseconds * 0.001
        if seconds < 0:
            # The clock of Redis is ahead of ours.
            seconds = 0.0
        into = self._delivery_seconds
        into.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        into.total += seconds

    # ── now and then ─────────────────────────────────────────────────────────────────────────────────

    @override
    def append_retried(self) -> None:
        self._count("append_retries")

    @override
    def writer_refused(self, code: str) -> None:
        self._count("writers_refused", code)

    @override
    def lease_troubled(self, reason: str) -> None:
        self._count("lease_troubles", reason)

    @override
    def run_accepted(self, agent: str) -> None:
        self._count("runs_accepted", agent)

    @override
    def attempt_began(self, began: AttemptBegan) -> None:
        self._count("attempts", began.agent, "first" if began.attempt == 1 else "again")
        self._count("attempts_active", began.agent)
        if began.waited is not None:
            self._wait_seconds.add(began.waited)

    @override
    def attempt_ended(self, ended: AttemptEnded) -> None:
        self._count("attempts_ended", ended.agent, ended.outcome)
        self._count("attempts_active", ended.agent, by=-1)
        with self._lock:
            labels = self._bounded(self._run_seconds, (ended.agent,))
            into = self._run_seconds.get(labels)
            if into is None:
                into = self._run_seconds[labels] = Histogram(RUN_BOUNDS)
            into.add(ended.seconds)

    @override
    def terminal_written(self, terminal: TerminalWritten) -> None:
        self._count("terminals", terminal.agent, terminal.status, terminal.code)

    @override
    def stream_restored(self) -> None:
        self._count("streams_restored")

    @override
    def reader_opened(self, *, resumed: bool) -> None:
        self._count("readers_opened", "resumed" if resumed else "new")
        self._count("readers_active")

    @override
    def reader_closed(self, *, cut_short: bool) -> None:
        self._count("readers_closed", "cut_short" if cut_short else "ended")
        self._count("readers_active", by=-1)

    @override
    def gap_told(self, reason: str) -> None:
        self._count("gaps", reason)

    @override
    def reset_told(self, reason: str) -> None:
        self._count("resets", reason)

    @override
    def redis_failed(self, at: str, error: BaseException) -> None:
        super().redis_failed(at, error)
        self._count("redis_failures", at)

    @override
    def answered(self, route: str, status: int) -> None:
        self._count("http_answers", route, str(status))

    def _count(self, name: str, *labels: str, by: int = 1) -> None:
        with self._lock:
            numbers = self._counted[name]
            bounded = self._bounded(numbers, labels)
            numbers[bounded] = numbers.get(bounded, 0) + by

    @staticmethod
    def _bounded(known: dict[_Labels, int] | dict[_Labels, Histogram], labels: _Labels) -> _Labels:
        if labels in known or len(known) < MOST_SERIES:
            return labels
        return (OTHER,) * len(labels)

    # ── read by backends ─────────────────────────────────────────────────────────────────────────────

    def families(self) -> list[Family]:
        """All metrics as they are now. From any thread."""
        with self._lock:
            counted = {name: dict(numbers) for name, numbers in self._counted.items()}
            run_seconds = dict(self._run_seconds)
        unlabelled: _Labels = ()
        plain = {
            "appends": self._appends,
            "appended_entries": self._entries,
            "writer_buffer_entries": self._buffered,
            "redis_away": int(self.outage.is_on),
        }
        histograms = {
            "append_seconds": {unlabelled: self._append_seconds},
            "delivery_seconds": {unlabelled: self._delivery_seconds},
            "run_wait_seconds": {unlabelled: self._wait_seconds},
            "run_seconds": run_seconds,
        }
        return [
            Family(
                name=name,
                kind=kind,
                help=text,
                unit="s" if kind is Kind.HISTOGRAM else "1",
                labels=labels,
                numbers={unlabelled: plain[name]} if name in plain else _numbers(counted.get(name), labels),
                histograms=histograms.get(name, {}),
            )
            for name, kind, labels, text in _CATALOGUE
        ]


def _numbers(counted: dict[_Labels, int] | None, labels: _Labels) -> dict[_Labels, int]:
    # What has no labels is there from the start, as 0: a rate of it can be asked for.
    return {(): 0, **(counted or {})} if not labels else counted or {}


#: Name, kind, labels, meaning: all metrics there are.
_CATALOGUE: Final[tuple[tuple[str, Kind, _Labels, str], ...]] = (
    ("appends", Kind.COUNTER, (), "Batches appended to streams."),
    ("appended_entries", Kind.COUNTER, (), "Entries appended to streams."),
    ("append_seconds", Kind.HISTOGRAM, (), "How long a batch's last round trip to Redis took."),
    ("append_retries", Kind.COUNTER, (), "Batches sent once more, since Redis failed or did not answer."),
    ("writer_buffer_entries", Kind.GAUGE, (), "Entries that wait in writers' buffers."),
    ("writers_refused", Kind.COUNTER, ("code",), "Attempts that the stream took nothing more from."),
    ("lease_troubles", Kind.COUNTER, ("reason",), "Leases not renewed, and runs that Redis had forgotten."),
    ("runs_accepted", Kind.COUNTER, ("agent",), "Runs accepted over HTTP."),
    ("attempts", Kind.COUNTER, ("agent", "kind"), "Executions of runs begun here: first ones, and again."),
    ("attempts_active", Kind.GAUGE, ("agent",), "Executions of runs in progress here."),
    ("attempts_ended", Kind.COUNTER, ("agent", "outcome"), "Executions of runs that ended here."),
    ("terminals", Kind.COUNTER, ("agent", "status", "code"), "Ends of runs written by this process."),
    ("run_seconds", Kind.HISTOGRAM, ("agent",), "How long an execution of a run took."),
    ("run_wait_seconds", Kind.HISTOGRAM, (), "How long runs waited for their first execution."),
    ("streams_restored", Kind.COUNTER, (), "Lost streams rebuilt from the durable answer."),
    ("readers_opened", Kind.COUNTER, ("start",), "Reads begun: new ones, and resumed from a cursor."),
    ("readers_active", Kind.GAUGE, (), "Reads in progress here."),
    ("readers_closed", Kind.COUNTER, ("outcome",), "Reads over; cut_short: the client is to come back."),
    ("gaps", Kind.COUNTER, ("reason",), "Times that a reader was told of missing entries."),
    ("resets", Kind.COUNTER, ("reason",), "Times that a reader was told to discard what it has."),
    ("delivery_seconds", Kind.HISTOGRAM, (), "From a live entry's append to its client's socket."),
    ("redis_failures", Kind.COUNTER, ("at",), "Calls that Redis failed or did not answer."),
    ("redis_away", Kind.GAUGE, (), "1 while Redis is away."),
    ("http_answers", Kind.COUNTER, ("route", "status"), "Answers of HTTP routes."),
)
