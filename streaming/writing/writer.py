"""One attempt's entries on their way into Redis: natural batching, retries, back-pressure.

At most one batch is in flight; what arrives meanwhile goes into the next. No timer, so no added latency:
the first entry leaves at once, and the busier Redis is, the larger the batches.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from streaming.entries import NewEntry
from streaming.errors import StreamUnavailable, WriterRefused
from streaming.store.run_states import Appended, Attempt, Forgotten
from streaming.store.run_store import RunStore
from streaming.writing.run_control import RunControl, StopReason

_log = logging.getLogger(__name__)

#: A batch is at most this many entries: the script runs well under a millisecond, so others aren't held up.
BATCH_ENTRIES: Final = 200
#: A batch stops growing at this many characters, for the same reason.
BATCH_SIZE: Final = 1_048_576
#: Entries that wait in memory before the agent has to: some seconds of the fastest model.
BUFFER_ENTRIES: Final = 5_000
#: Characters that wait in memory before the agent has to.
BUFFER_SIZE: Final = 8 * 1_048_576
#: Turns of the event loop until a batch is on its way, where a connection has to be taken first; else one.
TURNS_TO_CONNECT: Final = 3
#: How long Redis may stay away before the stream is given up. Longer than a restart or a failover takes.
PATIENCE: Final = timedelta(seconds=60)
#: Pauses between tries grow from the first to the second, with jitter against writers in step.
RETRY_FIRST: Final = timedelta(milliseconds=20)
RETRY_MOST: Final = timedelta(seconds=1)
#: Added to what the writer takes for the time by the clock of Redis: longer than a reply is on its way.
CLOCK_MARGIN: Final = timedelta(seconds=1)


class RunWriter:
    """Appends one attempt's entries in order, each once. Belongs to the loop it was made on."""

    def __init__(
        self,
        store: RunStore,
        attempt: Attempt,
        control: RunControl,
        *,
        patience: timedelta = PATIENCE,
    ) -> None:
        """Append to ``attempt``.

        Args:
            store: Where to.
            attempt: What to write for.
            control: The execution's. It is told to stop when somebody cancels the run.
            patience: How long Redis may stay away before nothing more is written.
        """
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._telemetry = store.telemetry
        #: What it writes for.
        self.attempt: Final = attempt
        self._control = control
        self._patience = patience.total_seconds()
        self._waiting: deque[NewEntry] = deque()
        #: Entries that are not known to be in Redis, and their characters.
        self._buffered = self._buffered_size = 0
        self._next_sequence = attempt.next_sequence
        #: What is under way, empty if nothing is.
        self._batch: list[NewEntry] = []
        self._batch_size = 0
        self._first_sent_at = self._sent_at = 0.0
        #: While Redis is away: when to give up, by the loop's clock, and the pause before the next try.
        self._give_up_at: float | None = None
        self._pause = RETRY_FIRST.total_seconds()
        self._progress = asyncio.Event()
        self._failure: Exception | None = None
        #: Batches that are in Redis, and how often one was sent once more.
        self.appends = 0
        self.retries = 0
        #: The clock of Redis, Unix time in milliseconds, at a time of the loop's clock.
        self._redis_clock = (attempt.began, self._loop.time())

    @property
    def forgotten(self) -> Forgotten:
        """The attempt, to be written again by another: Redis has forgotten entries of it.

        A batch whose reply was lost may be with readers too, so it is not the last known id that counts, but
        the present time by the clock of the Redis that gave the ids.
        """
        clock, at = self._redis_clock
        elapsed = self._loop.time() - at + CLOCK_MARGIN.total_seconds()
        return Forgotten(self.attempt, clock + int(elapsed * 1000))

    def carry_on(self, before: RunWriter) -> None:
        """Count on from the one that wrote the same execution before."""
        self.appends += before.appends
        self.retries += before.retries

    async def put(self, entry: NewEntry) -> None:
        """Hand an entry over. Waits while the buffer is full.

        Raises:
            WriterRefused: the stream takes nothing more from this attempt.
            StreamUnavailable: Redis stayed away too long.
        """
        while self._buffered >= BUFFER_ENTRIES or self._buffered_size >= BUFFER_SIZE:
            await self._wait_for_progress()
        self._raise_failure()
        self._waiting.append(entry)
        self._buffered += 1
        self._buffered_size += entry.size
        self._telemetry.buffered(1)
        if not self._batch:
            # What the agent does next may block the loop, so this is sent before.
            for _ in range(1 if self._send_next() else TURNS_TO_CONNECT):
                await asyncio.sleep(0)

    async def flush(self) -> None:
        """Wait until all that was handed over is in Redis.

        Raises:
            WriterRefused: the stream takes nothing more from this attempt.
            StreamUnavailable: Redis stayed away too long.
        """
        while self._batch:
            await self._wait_for_progress()
        self._raise_failure()

    async def _wait_for_progress(self) -> None:
        self._raise_failure()
        self._progress.clear()
        await self._progress.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send_next(self) -> bool:
        """Send what waits. No task for it: thousands of runs would each have one start for each chunk.

        Returns whether it leaves at the loop's next turn.
        """
        waiting, batch = self._waiting, self._batch
        batch.append(waiting.popleft())
        size = batch[0].size
        while waiting and len(batch) < BATCH_ENTRIES and size + waiting[0].size <= BATCH_SIZE:
            size += waiting[0].size
            batch.append(waiting.popleft())
        self._batch_size = size
        self._first_sent_at = self._sent_at = self._loop.time()
        return self._send()

    def _send(self) -> bool:
        try:
            return self._store.send_append(self.attempt, self._next_sequence, self._batch, self._take)
        except Exception as failure:  # noqa: BLE001 - told to the one who waits for the flush
            self._fail(failure)
            return True

    def _take(self, outcome: Appended | Exception) -> None:
        if isinstance(outcome, RedisError):
            self._send_again_later(outcome)
            return
        if isinstance(outcome, Exception):
            self._fail(outcome)
            return
        self._note(outcome)
        if self._waiting:
            self._send_next()
        self._progress.set()
        if outcome.cancel_requested:
            self._control.stop(StopReason.CANCELLED)

    def _send_again_later(self, error: RedisError) -> None:
        """While Redis is away: the script drops what is there already."""
        self._telemetry.redis_failed("append", error)
        now = self._loop.time()
        self._give_up_at = self._give_up_at or now + self._patience
        if now >= self._give_up_at:
            unavailable = StreamUnavailable()
            unavailable.__cause__ = error
            self._fail(unavailable)
            return
        self._loop.call_later(self._pause * random.uniform(0.5, 1), self._send_again)  # noqa: S311 - jitter, not a secret
        self._pause = min(self._pause * 2, RETRY_MOST.total_seconds())

    def _send_again(self) -> None:
        self.retries += 1
        self._telemetry.append_retried()
        self._sent_at = self._loop.time()
        self._send()

    def _note(self, appended: Appended) -> None:
        """The batch is in Redis."""
        batch, self._batch = self._batch, []
        self._buffered -= len(batch)
        self._buffered_size -= self._batch_size
        self._next_sequence += len(batch)
        self.appends += 1
        self._telemetry.buffered(-len(batch))
        self._telemetry.appended(len(batch), self._loop.time() - self._sent_at)
        if self._give_up_at is not None:
            self._give_up_at, self._pause = None, RETRY_FIRST.total_seconds()
            self._telemetry.redis_answered()
        if appended.lease_renewed:
            # Redis did it some time after this was sent.
            self._control.lease_renewed_at = time.monotonic() - (self._loop.time() - self._sent_at)
        milliseconds = appended.entry_ids[-1].partition("-")[0]
        if milliseconds:
            self._redis_clock = (int(milliseconds), self._first_sent_at)

    def _fail(self, failure: Exception) -> None:
        """Send nothing more."""
        self._failure, self._batch = failure, []
        if isinstance(failure, WriterRefused):
            self._telemetry.writer_refused(failure.code)
        elif not isinstance(failure, StreamUnavailable):
            _log.error("stream writer broke: run=%s error=%s", self.attempt.run, type(failure).__name__)
            _log.debug("stream writer failure", exc_info=failure)
        self._telemetry.buffered(-self._buffered)
        self._progress.set()
