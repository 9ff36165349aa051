"""Writes a run's stream again from the durable state, where Redis has lost it or never got its end.

The stream is a projection of the durable state, so a read of a run that has ended can always be served:
after a flush, after the stream has expired, or when Redis was away for longer than the run's writer waited.
It writes through the same fenced scripts as any producer, and what it writes depends on the answer alone: two
that restore the same run at once write it once.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from streaming.durable_answer import DurableAnswer, FindAnswer
from streaming.entries import RESET, NewEntry, RunStatus
from streaming.errors import RunEnded, RunLost, WriterRefused
from streaming.store.run_store import RunStore
from streaming.writing.writer import BATCH_ENTRIES

_log = logging.getLogger(__name__)

#: Every restorer of a run goes by this name, so that several are one attempt.
OWNER: Final = "durable-state"
RESTORED_REASON: Final = "the stream was lost and is rebuilt from the durable answer"
#: An answer is appended in pieces of this many characters: with ``BATCH_ENTRIES``, a bounded script call.
PIECE: Final = 4_096


class StreamRestorer:
    """Restores streams of one task hub's runs."""

    def __init__(self, runs: RunStore, find_answer: FindAnswer) -> None:
        self._runs = runs
        self._find_answer = find_answer

    async def restore(self, conversation_id: str, run: str | None) -> bool:
        """Make a run (``None``: the latest) readable again. Returns whether it is.

        Raises:
            TaskHubUnavailable: the durable state can't be read.
            RedisError: Redis does not answer.
        """
        answer = await self._find_answer(conversation_id, run)
        if answer is None:
            return False
        known = await self._runs.latest_run(conversation_id)
        restored = await self._write(conversation_id, answer)
        if run is not None and known is None:
            # The latest run comes back too, and last: a read that names no run goes on meaning that one.
            latest = await self._find_answer(conversation_id, None)
            if latest is not None and latest.run != run:
                await self._write(conversation_id, latest)
        return restored

    async def _write(self, conversation_id: str, answer: DurableAnswer) -> bool:
        entries = [
            NewEntry(timestamp=_now(), type=RESET, data={"reason": RESTORED_REASON}),
            *(
                NewEntry(timestamp=_now(), text=answer.text[at : at + PIECE])
                for at in range(0, len(answer.text), PIECE)
            ),
            _terminal(answer),
        ]
        try:
            await self._runs.register(conversation_id, answer.run, answer.agent)
            attempt = await self._runs.begin(
                conversation_id, answer.run, owner=OWNER, reason=RESTORED_REASON, reopen=True
            )
            # From 0, whatever is there: it is of this attempt, so of this answer. Where an older attempt left
            # entries, beginning the attempt has written the reset already, as the sequence 0 that ours is.
            for first in range(0, len(entries), BATCH_ENTRIES):
                await self._runs.append(attempt, first, entries[first : first + BATCH_ENTRIES])
        except RunEnded:
            # It had its end all along, or another restorer was faster.
            return True
        except WriterRefused as refused:
            # Another execution of the run has taken over, or Redis was flushed once more.
            _log.warning("stream not rebuilt, %s: run=%s", refused.code, answer.run)
            return not isinstance(refused, RunLost)
        self._runs.telemetry.stream_restored()
        _log.warning(
            "stream rebuilt from the durable answer: conversation=%s run=%s", conversation_id, answer.run
        )
        return True


def _terminal(answer: DurableAnswer) -> NewEntry:
    if answer.error is None:
        return NewEntry(timestamp=_now(), status=RunStatus.COMPLETED)
    if answer.code == RunStatus.CANCELLED.value:
        return NewEntry(timestamp=_now(), status=RunStatus.CANCELLED)
    return NewEntry(timestamp=_now(), status=RunStatus.FAILED, error=answer.error, code=answer.code)


def _now() -> int:
    return time.time_ns() // 1_000_000
