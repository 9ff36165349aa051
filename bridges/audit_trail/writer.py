"""One execution's events on their way into the store: never in the agent's way.

At most one batch is in flight; what arrives meanwhile goes into the next. What finds the buffer full is
dropped: it leaves a hole in the events' numbers, in whose place the store says how many are missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from bridges.audit_trail.events import Thread, TrailEvent
from bridges.audit_trail.store import Batch, TrailStore

_log = logging.getLogger(__name__)

#: A batch is at most this many events: the script runs well under a millisecond, so others aren't held up.
BATCH_EVENTS: Final = 100
#: Events that wait in memory; then new ones are dropped. A minute of a model at its usual pace.
BUFFER_EVENTS: Final = 2_000
#: Characters that wait in memory: hundreds of runs may wait at once while the store is away.
BUFFER_SIZE: Final = 262_144
#: How long the store may stay away before what waits is given up. Longer than a restart or a failover takes.
PATIENCE: Final = timedelta(seconds=60)
#: Pauses between tries grow from the first to the second, with jitter against writers in step.
RETRY_FIRST: Final = timedelta(milliseconds=50)
RETRY_MOST: Final = timedelta(seconds=2)


class TrailWriter:
    """Takes one execution's events and stores them in the background. Belongs to the loop it was made on."""

    def __init__(
        self,
        store: TrailStore,
        thread: Thread,
        run: str,
        *,
        execution: str,
        request: str | None,
        sending: set[asyncio.Task[None]],
        patience: timedelta = PATIENCE,
    ) -> None:
        """Store into ``store``.

        Args:
            store: The event loop's own.
            thread: Whose trail it is.
            run: Its id.
            execution: See ``Batch``.
            request: The run's message.
            sending: Keeps hold of the task that sends, which outlives the run where the store is slow.
            patience: How long the store may stay away.
        """
        self._store = store
        self._thread = thread
        self._run = run
        self._execution = execution
        self._request = request
        self._all_sending = sending
        self._patience = patience.total_seconds()
        #: Events that wait, with their numbers.
        self._waiting: deque[tuple[int, TrailEvent]] = deque()
        self._waiting_size = 0
        self._next_number = 0
        self._sending: asyncio.Task[None] | None = None
        #: The store takes no more of this execution.
        self._is_refused = False

    def put(self, event: TrailEvent) -> None:
        """Take an event. Never waits: where there is no room, it is dropped and counted."""
        number = self._next_number
        self._next_number += 1
        is_full = len(self._waiting) >= BUFFER_EVENTS or self._waiting_size + event.size > BUFFER_SIZE
        # How a run ended is what matters most; there is one such event.
        if self._is_refused or (is_full and not event.closes):
            return
        self._waiting.append((number, event))
        self._waiting_size += event.size
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="audit-trail-writer")
            self._all_sending.add(self._sending)
            self._sending.add_done_callback(self._all_sending.discard)

    async def flush(self, timeout: timedelta) -> bool:
        """Wait until all that was taken is stored, or given up; whether it was in time."""
        if self._sending is None:
            return True
        # It goes on after the time is over.
        done, _ = await asyncio.wait({self._sending}, timeout=timeout.total_seconds())
        return bool(done)

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._append(self._next_batch())
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and it must not harm the run
            _log.error("audit trail broke: run=%s error=%s", self._run, type(error).__name__)
            _log.debug("audit trail failure", exc_info=True)
            self._give_up()
        finally:
            self._sending = None

    def _next_batch(self) -> Batch:
        """The oldest events, up to the first hole."""
        first = self._waiting[0][0]
        events: list[TrailEvent] = []
        while self._waiting and len(events) < BATCH_EVENTS and self._waiting[0][0] == first + len(events):
            _, event = self._waiting.popleft()
            self._waiting_size -= event.size
            events.append(event)
        return Batch(self._thread, self._run, self._execution, first, events, self._request)

    async def _append(self, batch: Batch) -> None:
        """Append, again and again while the store is away: it drops what it has already."""
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        pause = RETRY_FIRST.total_seconds()
        while True:
            try:
                self._is_refused = not await self._store.append(batch)
            except RedisError as error:
                give_up_at = give_up_at or loop.time() + self._patience
                if loop.time() >= give_up_at:
                    lost = len(batch.events) + self._give_up()
                    _log.error(
                        "audit trail lost events, Redis is away: run=%s events=%d error=%s",
                        self._run,
                        lost,
                        type(error).__name__,
                    )
                    return
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, RETRY_MOST.total_seconds())
            else:
                if self._is_refused:
                    self._give_up()
                return

    def _give_up(self) -> int:
        """Drop what waits; how much that was. The next event, if one comes, tells of the hole."""
        lost = len(self._waiting)
        self._waiting.clear()
        self._waiting_size = 0
        return lost
