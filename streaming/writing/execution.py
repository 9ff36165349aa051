"""What is told of one execution of a run, from its begin to its end: telemetry, and one line in the log."""

from __future__ import annotations

import logging
import time
from typing import Final

from streaming.store.run_states import Attempt
from streaming.telemetry import AttemptBegan, AttemptEnded, Telemetry, TerminalWritten
from streaming.writing.writer import RunWriter

_log = logging.getLogger(__name__)

#: Another execution has the run, or it has ended.
SUPERSEDED: Final = "superseded"
#: Redis stayed away too long: the run goes on without its stream.
STREAM_LOST: Final = "stream_lost"
#: It was stopped since another execution has the run, or its process stops.
ABANDONED: Final = "abandoned"


class RunExecution:
    """One execution of a run, made where its attempt has begun, in the task that executes it."""

    def __init__(self, telemetry: Telemetry, agent: str, attempt: Attempt) -> None:
        self._telemetry = telemetry
        self._agent = agent
        self._attempt = attempt
        self._began = time.monotonic()
        self._ended = False
        waited = max(0, attempt.began - attempt.created) / 1_000 if attempt.number == 1 else None
        began = AttemptBegan(
            agent=agent,
            conversation_id=attempt.conversation_id,
            run=attempt.run,
            attempt=attempt.number,
            traceparent=attempt.trace,
            waited=waited,
        )
        telemetry.attempt_began(began)
        self._span = telemetry.traces.attempt(began)
        # The agent runs in this task: what its framework and its tools trace is part of the attempt.
        self._span.make_current()
        _log.debug(
            "run started: conversation=%s run=%s agent=%s attempt=%d",
            attempt.conversation_id,
            attempt.run,
            agent,
            attempt.number,
        )

    def end(self, outcome: str, code: str, *, chunks: int, entries: int, writer: RunWriter) -> None:
        """It writes nothing more. Doing it again does nothing.

        Args:
            outcome: The terminal's status, or one of those above.
            code: Of the terminal's error; empty where there is none.
            chunks: Pieces of text among its entries.
            entries: All that it had to write.
            writer: Wrote it.
        """
        if self._ended:
            return
        self._ended = True
        seconds = time.monotonic() - self._began
        if outcome not in (SUPERSEDED, STREAM_LOST, ABANDONED):
            self._telemetry.terminal_written(TerminalWritten(self._agent, outcome, code))
        self._telemetry.attempt_ended(AttemptEnded(self._agent, outcome, seconds, entries))
        counts = {
            "chunks": chunks,
            "entries": entries,
            "appends": writer.appends,
            "append_retries": writer.retries,
        }
        self._span.end(outcome, {**counts, **({"code": code} if code else {})})
        _log.info(
            "run ended: conversation=%s run=%s agent=%s attempt=%d outcome=%s%s chunks=%d entries=%d"
            " seconds=%.1f",
            self._attempt.conversation_id,
            self._attempt.run,
            self._agent,
            writer.attempt.number,
            outcome,
            f" code={code}" if code else "",
            chunks,
            entries,
            seconds,
        )
