"""Looks whether a followed run's producer is alive, and ends the run where it is not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

from redis.exceptions import RedisError

from streaming.durable_answer import Restore
from streaming.entries import NewEntry, RunStatus
from streaming.errors import TaskHubUnavailable
from streaming.store.run_states import Look, RunState, Settlement
from streaming.store.run_store import RunStore

_log = logging.getLogger(__name__)

#: How often a silent stream's producer is looked for, whatever the number of readers.
LIVENESS_INTERVAL: Final = timedelta(seconds=5)
#: Who looks sooner than after this share of it gets what was seen last.
LOOKED_ENOUGH: Final = 0.9
#: Where a scheduler may resume a run that lost its worker, readers give it up after this time.
RESUME_GRACE: Final = timedelta(minutes=10)
#: Runs that seem dead and wait for their second look; more than one host ever has at once.
SUSPECTS: Final = 10_000
#: A task hub that can't be asked for a run's answer delays the run's end as ``interrupted`` at most so long.
HUB_PATIENCE: Final = timedelta(seconds=60)
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

    async def ended(self, state: RunState, restore: Restore | None = None) -> bool:
        """End the run if its producer is gone. Returns whether it has ended by now.

        Args:
            state: The run as the caller saw it.
            restore: Tried before the run is given up: the durable state may have its answer.

        Raises:
            RedisError: Redis does not answer.
        """
        if state.status.is_terminal:
            return True
        name = (state.conversation_id, state.run)
        settlement = await self._look_at(state)
        if settlement is Settlement.LAPSED:
            suspected_for = self._suspected_for(name, state.attempt)
            restored = await _try(restore, *name)
            if restored or (restored is None and suspected_for < HUB_PATIENCE):
                return bool(restored)
            if suspected_for < LIVENESS_INTERVAL:
                return False
            settlement = await self._runs.settle(state, interrupted(), patience=self._dead_after)
            if settlement is Settlement.ALIVE:
                # A scheduler may still resume it.
                return False
        self._suspected.pop(name, None)
        if settlement is Settlement.SETTLED:
            _log.warning("run ended as interrupted: conversation=%s run=%s", *name)
        return settlement in (Settlement.SETTLED, Settlement.ENDED)

    def send_look(self, state: RunState, on_outcome: Callable[[Look | Exception], None]) -> None:
        """Look whether the attempt that the caller saw still has its producer, without a task."""

        def take(look: Look | Exception) -> None:
            if isinstance(look, Look) and look.settlement is Settlement.ALIVE:
                self._suspected.pop((state.conversation_id, state.run), None)
            on_outcome(look)

        self._runs.send_look(state, take)

    async def _look_at(self, state: RunState) -> Settlement:
        """Whether it would be ended now, at the end of its lease."""
        return await self._runs.settle(state, interrupted(), patience=timedelta(0), confirm=False)

    def _suspected_for(self, name: tuple[str, str], attempt: int) -> timedelta:
        """How long the attempt has seemed dead; from its first look on."""
        now = asyncio.get_running_loop().time()
        known = self._suspected.get(name)
        if known is None or known[0] != attempt:
            while len(self._suspected) >= SUSPECTS:
                del self._suspected[next(iter(self._suspected))]
            known = self._suspected[name] = (attempt, now)
        return timedelta(seconds=now - known[1])


async def _try(restore: Restore | None, conversation_id: str, run: str) -> bool | None:
    """Restore a run. ``None``: the durable state can't be asked at the moment."""
    if restore is None:
        return False
    try:
        return await restore(conversation_id, run)
    except TaskHubUnavailable:
        _log.warning("durable answer not available: conversation=%s run=%s", conversation_id, run)
        return None


class Seen(NamedTuple):
    """What became of a silent stream."""

    #: Nothing comes after what is stored.
    is_over: bool
    #: The id of the newest entry, where that is known; ``0-0``: there is none.
    newest: str | None = None


class ProducerWatch:
    """Watches one run for all its readers on this event loop."""

    __slots__ = (
        "_checked_at",
        "_conversation_id",
        "_in_progress",
        "_missing",
        "_over",
        "_producers",
        "_run",
        "_runs",
        "restore",
    )

    def __init__(
        self, runs: RunStore, producers: ProducerCheck, conversation_id: str, run: str | None
    ) -> None:
        """Watch ``run``; ``None``: the conversation's latest."""
        #: Asked for a run that Redis has lost.
        self.restore: Restore | None = None
        self._runs = runs
        self._producers = producers
        self._conversation_id = conversation_id
        self._run = run
        self._checked_at = float("-inf")
        self._missing = False
        self._over = False
        #: The run in progress, as it was when it was last looked up.
        self._in_progress: RunState | None = None

    def look(self, on_seen: Callable[[Seen], None]) -> None:
        """Tell ``on_seen`` how it is. Without a task, where no more is to be done than to look."""
        state = self._in_progress

        def take(look: Look | Exception) -> None:
            if isinstance(look, Exception):
                self._runs.telemetry.redis_failed("producer_check", look)
                on_seen(Seen(is_over=False))
            elif look.settlement is Settlement.ALIVE:
                self._over, self._checked_at = False, asyncio.get_running_loop().time()
                on_seen(Seen(is_over=False, newest=look.newest))
            else:
                self._in_progress = None
                self.look(on_seen)

        if state is not None:
            self._producers.send_look(state, take)
            return
        self._runs.commands.tell(self.is_over(), lambda is_over: on_seen(Seen(is_over=is_over is True)))

    async def is_over(self) -> bool:
        """Whether nothing comes after what is stored: the run has ended, or its state is gone.

        A run that has lost its producer is ended on the way; one that Redis has lost is restored.
        """
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= LIVENESS_INTERVAL.total_seconds() * LOOKED_ENOUGH:
            self._checked_at = now
            try:
                self._over = await self._look()
            except RedisError as error:
                self._runs.telemetry.redis_failed("producer_check", error)
        return self._over

    async def _look(self) -> bool:
        conversation_id, run = self._conversation_id, self._run
        if run is not None:
            state = await self._runs.state(conversation_id, run)
            if state is not None:
                self._missing = False
                return await self._has_ended(state)
            return await _try(self.restore, conversation_id, run) or self._is_missing_again()
        state = await self._runs.latest_run(conversation_id)
        if state is not None:
            await self._has_ended(state)
        elif not await self._runs.stream_exists(conversation_id):
            return self._is_missing_again()
        self._missing = False
        return False

    async def _has_ended(self, state: RunState) -> bool:
        has_ended = await self._producers.ended(state, self.restore)
        self._in_progress = None if has_ended else state
        return has_ended

    def _is_missing_again(self) -> bool:
        """One look is not enough: a producer makes its run known again soon after Redis has forgotten it."""
        before, self._missing = self._missing, True
        return before


def interrupted() -> NewEntry:
    """The terminal of a run whose producer is gone."""
    return NewEntry(
        timestamp=time.time_ns() // 1_000_000,
        status=RunStatus.INTERRUPTED,
        error=INTERRUPTED_MESSAGE,
        code=RunStatus.INTERRUPTED.value,
    )
