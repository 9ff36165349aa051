"""Looks whether a followed run's producer is alive, and ends the run where it is not."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from streaming.entries import NewEntry, RunStatus
from streaming.run_store import RunStore, Settlement

_log = logging.getLogger(__name__)

#: How often a silent stream's producer is looked for, whatever the number of readers.
LIVENESS_INTERVAL: Final = timedelta(seconds=5)
#: Where a scheduler may resume a run that lost its worker, readers give it up after this time.
RESUME_GRACE: Final = timedelta(minutes=10)
INTERRUPTED_MESSAGE: Final = "The run was interrupted: the process that executed it is gone."


class ProducerWatch:
    """Watches the producer of one run for all its readers on this event loop."""

    def __init__(self, runs: RunStore, conversation_id: str, run: str | None, dead_after: timedelta) -> None:
        """Watch ``run``; ``None``: the conversation's latest."""
        self._runs = runs
        self._conversation_id = conversation_id
        self._run = run
        self._dead_after = dead_after
        self._checked_at = float("-inf")
        self._suspected: tuple[str, int] | None = None
        self._lost = False

    async def is_lost(self) -> bool:
        """Whether the stream will get no end any more: its run's state, or all of it, is gone.

        A run that has lost its producer is ended on the way. It has to be seen dead twice, an interval
        apart: right after an outage of Redis every lease has lapsed.
        """
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= LIVENESS_INTERVAL.total_seconds():
            self._checked_at = now
            try:
                await self._check()
            except RedisError as error:
                _log.warning("producer check failed: error=%s", type(error).__name__)
        return self._lost

    async def _check(self) -> None:
        if self._run is None:
            state = await self._runs.latest_run(self._conversation_id)
        else:
            state = await self._runs.state(self._conversation_id, self._run)
        if state is None:
            self._lost = self._run is not None or not await self._runs.stream_exists(self._conversation_id)
            return
        self._lost = False
        if state.status.is_terminal:
            return
        seen = (state.run, state.attempt)
        settlement = await self._runs.settle(
            state, interrupted(), patience=self._dead_after, confirm=self._suspected == seen
        )
        self._suspected = seen if settlement is Settlement.LAPSED else None
        if settlement is Settlement.SETTLED:
            _log.warning("run ended as interrupted: conversation=%s run=%s", self._conversation_id, state.run)


def interrupted() -> NewEntry:
    """The terminal of a run whose producer is gone."""
    return NewEntry(
        timestamp=time.time_ns() // 1_000_000,
        status=RunStatus.INTERRUPTED,
        error=INTERRUPTED_MESSAGE,
        code=RunStatus.INTERRUPTED.value,
    )
