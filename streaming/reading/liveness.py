"""Looks whether a followed run's producer is alive, and ends the run where it is not."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from streaming.entries import NewEntry, RunStatus
from streaming.store.run_store import RunState, RunStore, Settlement

_log = logging.getLogger(__name__)

#: How often a silent stream's producer is looked for, whatever the number of readers.
LIVENESS_INTERVAL: Final = timedelta(seconds=5)
#: Where a scheduler may resume a run that lost its worker, readers give it up after this time.
RESUME_GRACE: Final = timedelta(minutes=10)
#: Runs that seem dead and wait for their second look; more than one host ever has at once.
SUSPECTS: Final = 10_000
INTERRUPTED_MESSAGE: Final = "The run was interrupted: the process that executed it is gone."


class ProducerCheck:
    """Ends runs whose producer is gone, for everybody who looks at runs on this event loop.

    A run has to be seen dead twice, an interval apart: right after an outage of Redis every lease has lapsed.
    """

    def __init__(self, runs: RunStore, dead_after: timedelta) -> None:
        """Give runs up ``dead_after`` their lease has lapsed."""
        self._runs = runs
        self._dead_after = dead_after
        #: Conversation and run → the attempt that seemed dead, and since when (the loop's clock).
        self._suspected: dict[tuple[str, str], tuple[int, float]] = {}

    async def ended(self, state: RunState) -> bool:
        """End the run if its producer is gone. Returns whether it has ended by now.

        Raises:
            RedisError: Redis does not answer.
        """
        if state.status.is_terminal:
            return True
        name, now = (state.conversation_id, state.run), asyncio.get_running_loop().time()
        attempt, since = self._suspected.get(name, (None, now))
        confirm = attempt == state.attempt and now - since >= LIVENESS_INTERVAL.total_seconds()
        settlement = await self._runs.settle(state, interrupted(), patience=self._dead_after, confirm=confirm)
        if settlement is Settlement.LAPSED:
            self._suspect(name, state.attempt, now)
            return False
        self._suspected.pop(name, None)
        if settlement is Settlement.SETTLED:
            _log.warning("run ended as interrupted: conversation=%s run=%s", *name)
        return settlement in (Settlement.SETTLED, Settlement.ENDED)

    def _suspect(self, name: tuple[str, str], attempt: int, now: float) -> None:
        known = self._suspected.get(name)
        if known is None or known[0] != attempt:
            while len(self._suspected) >= SUSPECTS:
                del self._suspected[next(iter(self._suspected))]
            self._suspected[name] = (attempt, now)


class ProducerWatch:
    """Watches one run for all its readers on this event loop."""

    def __init__(
        self, runs: RunStore, producers: ProducerCheck, conversation_id: str, run: str | None
    ) -> None:
        """Watch ``run``; ``None``: the conversation's latest."""
        self._runs = runs
        self._producers = producers
        self._conversation_id = conversation_id
        self._run = run
        self._checked_at = float("-inf")
        self._over = False

    async def is_over(self) -> bool:
        """Whether nothing comes after what is stored: the run has ended, or its state is gone.

        A run that has lost its producer is ended on the way.
        """
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= LIVENESS_INTERVAL.total_seconds():
            self._checked_at = now
            try:
                self._over = await self._look()
            except RedisError as error:
                _log.warning("producer check failed: error=%s", type(error).__name__)
        return self._over

    async def _look(self) -> bool:
        if self._run is not None:
            state = await self._runs.state(self._conversation_id, self._run)
            return state is None or await self._producers.ended(state)
        state = await self._runs.latest_run(self._conversation_id)
        if state is not None:
            await self._producers.ended(state)
            return False
        return not await self._runs.stream_exists(self._conversation_id)


def interrupted() -> NewEntry:
    """The terminal of a run whose producer is gone."""
    return NewEntry(
        timestamp=time.time_ns() // 1_000_000,
        status=RunStatus.INTERRUPTED,
        error=INTERRUPTED_MESSAGE,
        code=RunStatus.INTERRUPTED.value,
    )
