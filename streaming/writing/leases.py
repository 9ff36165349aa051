"""Keeps the leases of this process's runs, and hears when one of them is to stop.

It lives on a thread of its own: a tool that blocks the agents' loop must not cost other runs their lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streaming.cancellation import cancel_and_wait
from streaming.connections import subscription
from streaming.entries import RunStatus
from streaming.store.run_states import Renewal, RunState
from streaming.store.run_store import CONTROL_CHANNEL, LEASE, RunStore
from streaming.telemetry import Telemetry
from streaming.writing.run_control import RunControl, StopReason

_log = logging.getLogger(__name__)

#: Five renewals fit in a lease: four of a silent run may fail before a reader thinks the producer gone.
RENEW_INTERVAL: Final = LEASE / 5
#: A lease that an append has renewed within this time is left alone. Appends do so each fifth of a lease: if
#: there is one a second, every second or third does. When they cease, three renewals fit into what is left.
FRESH: Final = LEASE * 3 / 10
#: Leases that are renewed together. It takes half a millisecond, for which the agents' loop may have to wait.
AT_ONCE: Final = 10
#: A run that its task hub has not begun after this time is let go, and so ends as interrupted: longer than
#: any queue of runs that somebody still waits for, short enough that nobody waits for ever.
PENDING_LIMIT: Final = timedelta(hours=24)
#: How long closing waits for the thread.
STOP_TIMEOUT: Final = timedelta(seconds=5)
#: How often a stopping service looks whether its runs have ended.
IDLE_CHECK: Final = timedelta(milliseconds=50)
#: A broken subscription is tried again after this pause; the flag in the run's state covers the time between.
RESUBSCRIBE_PAUSE: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    agent: str
    attempt: int
    control: RunControl | None
    #: The run's ``RunState.trace``.
    trace: str = ""
    #: Since when, by the process's monotonic clock, in seconds.
    since: float = field(default_factory=time.monotonic)

    @property
    def is_fresh(self) -> bool:
        """Whether an append has renewed it: most runs that write need no renewal besides."""
        if self.control is None:
            return False
        return time.monotonic() - self.control.lease_renewed_at < FRESH.total_seconds()

    @property
    def is_overdue(self) -> bool:
        """Whether its task hub has not begun it for too long."""
        return self.attempt == 0 and time.monotonic() - self.since >= PENDING_LIMIT.total_seconds()

    def is_superseded(self, renewed: Renewal) -> bool:
        """Whether the run has ended, or a later attempt has it that is not this execution's own.

        A lower attempt is a state from before (failed over): the writer will find a gap and write it again.
        Its own may be higher than the one that is kept: it is begun in Redis first.
        """
        is_own = self.control is not None and renewed.owner in self.control.owners
        return renewed.status.is_terminal or (renewed.attempt > self.attempt and not is_own)


class LeaseKeeper:
    """Renews the leases of the runs it was given, until told to stop or they end."""

    def __init__(
        self, connect: Callable[[], Redis], stream_ttl: timedelta, *, telemetry: Telemetry | None = None
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._connect = connect
        self._ttl = stream_ttl
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        #: Those whose renewal Redis has not answered yet.
        self._asking: set[_Kept] = set()

    def keep(
        self,
        conversation_id: str,
        run: str,
        *,
        agent: str,
        attempt: int = 0,
        control: RunControl | None = None,
        trace: str = "",
    ) -> None:
        """Keep a run's lease, and the run known to Redis.

        ``attempt`` 0 keeps one that has not begun, on behalf of its task hub.
        """
        with self._lock:
            self._kept[conversation_id, run] = _Kept(agent, attempt, control, trace)
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="lease-keeper", daemon=True)
                self._thread.start()

    def release(self, conversation_id: str, run: str, control: RunControl | None = None) -> None:
        """Let a run go, unless another execution of it is kept by now."""
        with self._lock:
            kept = self._kept.get((conversation_id, run))
            if kept is not None and kept.control is control:
                del self._kept[conversation_id, run]

    def running(self) -> list[tuple[str, str]]:
        """Conversation and run of each run that is kept."""
        with self._lock:
            return list(self._kept)

    def keeps_runs(self) -> bool:
        """Whether any run is kept. Takes no lock."""
        return bool(self._kept)

    async def wait_until_idle(self) -> None:
        """Wait until no run is kept any more."""
        while self._kept:  # noqa: ASYNC110 - they end on other threads, where this loop's events can't be set
            await asyncio.sleep(IDLE_CHECK.total_seconds())

    def stop_all(self) -> None:
        """Stop all runs that execute here: the process is about to end, nothing of them may be kept."""
        for (conversation_id, run), kept in list(self._kept.items()):
            self._stop(conversation_id, run, kept, StopReason.SUPERSEDED)
            self.release(conversation_id, run, kept.control)

    def close(self) -> None:
        """Stop the thread. Blocks until it has, so call it where no loop is running."""
        loop, stopping, thread = self._loop, self._stopping, self._thread
        if loop is not None and stopping is not None and thread is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stopping.set)
            thread.join(STOP_TIMEOUT.total_seconds())

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        redis = self._connect()
        listening = asyncio.create_task(self._listen(redis))
        store = RunStore(redis, self._ttl, telemetry=self._telemetry)
        try:
            while not self._stopping.is_set():
                await self._renew_all(store, self._stopping)
        finally:
            await cancel_and_wait([listening])
            await redis.aclose()

    async def _renew_all(self, store: RunStore, stopping: asyncio.Event) -> None:
        """Renew all leases once, a few at a time: together they would hold up all runs, here and in Redis."""
        kept = list(self._kept.items())
        groups = [kept[start : start + AT_ONCE] for start in range(0, len(kept), AT_ONCE)] or [[]]
        pause = RENEW_INTERVAL.total_seconds() / len(groups)
        for group in groups:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
                break
            # None waits for another: while Redis is away each takes until its time limit.
            for (conversation_id, run), lease in group:
                self._renew(store, conversation_id, run, lease)

    def _renew(self, store: RunStore, conversation_id: str, run: str, kept: _Kept) -> None:
        if self._kept.get((conversation_id, run)) is not kept or kept.is_fresh or kept in self._asking:
            # Let go while it waited for its turn, for one.
            return
        if kept.is_overdue:
            self._telemetry.lease_troubled("never_begun")
            _log.warning("run never begun: conversation=%s run=%s", conversation_id, run)
            self.release(conversation_id, run)
            return

        def take(renewed: Renewal | Exception | None) -> None:
            self._asking.discard(kept)
            if isinstance(renewed, Exception):
                self._has_failed(run, renewed)
                return
            self._telemetry.redis_answered()
            if renewed is not None:
                self._obey(conversation_id, run, kept, renewed)
            elif self._kept.get((conversation_id, run)) is kept:
                known = store.register(
                    conversation_id, run, kept.agent, attempt=kept.attempt, trace=kept.trace
                )
                store.commands.tell(known, lambda state: self._made_known(conversation_id, run, state))

        self._asking.add(kept)
        try:
            store.send_renew(conversation_id, run, kept.attempt, take)
        except Exception as error:  # noqa: BLE001 - the thread must outlive it
            take(error)

    def _has_failed(self, run: str, error: Exception) -> None:
        """One run's trouble must not cost the others their lease."""
        self._telemetry.lease_troubled("failed")
        self._telemetry.redis_failed("lease", error)
        _log.debug("lease renewal failed: run=%s error=%s", run, type(error).__name__)

    def _made_known(self, conversation_id: str, run: str, state: RunState | Exception) -> None:
        """A run that Redis had forgotten is registered again, or will be tried in the next round."""
        if isinstance(state, Exception):
            self._has_failed(run, state)
            return
        self._telemetry.lease_troubled("forgotten")
        _log.warning("run made known again: conversation=%s run=%s", conversation_id, run)

    def _obey(self, conversation_id: str, run: str, kept: _Kept, renewed: Renewal) -> None:
        """Stop the execution if the run is not its own any more, or is to stop."""
        if kept.is_superseded(renewed):
            self._stop(conversation_id, run, kept, StopReason.SUPERSEDED)
            self.release(conversation_id, run, kept.control)
        elif renewed.cancel_requested and renewed.status is RunStatus.RUNNING:
            self._stop(conversation_id, run, kept, StopReason.CANCELLED)

    async def _listen(self, redis: Redis) -> None:
        """Hear of cancels at once rather than at the next renewal."""
        while True:
            pubsub = subscription(redis, ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(CONTROL_CHANNEL)
                async for message in pubsub.listen():
                    conversation_id, _, run = bytes(message["data"]).decode().partition(" ")
                    kept = self._kept.get((conversation_id, run))
                    if kept is not None:
                        self._stop(conversation_id, run, kept, StopReason.CANCELLED)
            except Exception as error:  # noqa: BLE001 - whatever broke: the next subscription is a new one
                self._telemetry.redis_failed("control_subscription", error)
                await asyncio.sleep(RESUBSCRIBE_PAUSE.total_seconds())
            finally:
                with contextlib.suppress(RedisError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _stop(self, conversation_id: str, run: str, kept: _Kept, reason: StopReason) -> None:
        if kept.control is not None:
            _log.info("stopping run: conversation=%s run=%s reason=%s", conversation_id, run, reason.value)
            kept.control.stop(reason)
