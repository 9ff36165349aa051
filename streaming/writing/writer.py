"""One attempt's entries on their way into Redis: natural batching, retries, back-pressure.

At most one batch is in flight; what arrives meanwhile goes into the next. No timer, so no added latency:
the first entry leaves at once, and the busier Redis is, the larger the batches.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from streaming.entries import NewEntry
from streaming.errors import StreamUnavailable, WriterRefused
from streaming.store.run_states import Appended, Attempt, Forgotten
from streaming.store.run_store import RunStore

_log = logging.getLogger(__name__)

#: A batch is at most this many entries: the script runs well under a millisecond, so others aren't held up.
BATCH_ENTRIES: Final = 200
#: A batch stops growing at this many characters, for the same reason.
BATCH_SIZE: Final = 1_048_576
#: Entries that wait in memory before the agent has to: some seconds of the fastest model.
BUFFER_ENTRIES: Final = 5_000
#: Characters that wait in memory before the agent has to.
BUFFER_SIZE: Final = 8 * 1_048_576
#: Turns of the event loop until a batch is on its way: the driver looks first whether its connection is still
#: open. Measured as 2.
TURNS_TO_SEND: Final = 3
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
        *,
        on_cancel: Callable[[], None],
        patience: timedelta = PATIENCE,
    ) -> None:
        self._store = store
        self._telemetry = store.telemetry
        #: What it writes for.
        self.attempt: Final = attempt
        self._on_cancel = on_cancel
        self._patience = patience.total_seconds()
        self._waiting: deque[NewEntry] = deque()
        self._waiting_size = 0
        self._next_sequence = attempt.next_sequence
        self._draining: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()
        self._failure: Exception | None = None
        #: Batches that are in Redis, and how often one was sent once more.
        self.appends = 0
        self.retries = 0
        #: The clock of Redis, Unix time in milliseconds, at a time of the loop's clock.
        self._redis_clock = (attempt.began, asyncio.get_running_loop().time())

    @property
    def forgotten(self) -> Forgotten:
        """The attempt, to be written again by another: Redis has forgotten entries of it.

        A batch whose reply was lost may be with readers too, so it is not the last known id that counts, but
        the present time by the clock of the Redis that gave the ids.
        """
        clock, at = self._redis_clock
        elapsed = asyncio.get_running_loop().time() - at + CLOCK_MARGIN.total_seconds()
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
        while len(self._waiting) >= BUFFER_ENTRIES or self._waiting_size >= BUFFER_SIZE:
            await self._wait_for_progress()
        self._raise_failure()
        self._waiting.append(entry)
        self._waiting_size += entry.size
        self._telemetry.buffered(1)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="stream-writer")
            # What the agent does next may block the loop, so this is sent before.
            for _ in range(TURNS_TO_SEND):
                await asyncio.sleep(0)

    async def flush(self) -> None:
        """Wait until all that was handed over is in Redis.

        Raises:
            WriterRefused: the stream takes nothing more from this attempt.
            StreamUnavailable: Redis stayed away too long.
        """
        while self._draining is not None:
            await self._wait_for_progress()
        self._raise_failure()

    async def _wait_for_progress(self) -> None:
        self._raise_failure()
        self._progress.clear()
        await self._progress.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                await self._append(batch)
                for entry in batch:
                    self._waiting.popleft()
                    self._waiting_size -= entry.size
                self._next_sequence += len(batch)
                self._telemetry.buffered(-len(batch))
                self._progress.set()
        except (WriterRefused, StreamUnavailable) as failure:
            self._failure = failure
            if isinstance(failure, WriterRefused):
                self._telemetry.writer_refused(failure.code)
        except Exception as failure:  # noqa: BLE001 - told to the one who waits for the flush
            _log.error("stream writer broke: run=%s error=%s", self.attempt.run, type(failure).__name__)
            _log.debug("stream writer failure", exc_info=True)
            self._failure = failure
        finally:
            # Of a writer that has failed nothing is sent any more.
            self._telemetry.buffered(-len(self._waiting) if self._waiting else 0)
            self._draining = None
            self._progress.set()

    def _next_batch(self) -> list[NewEntry]:
        batch: list[NewEntry] = []
        size = 0
        for entry in self._waiting:
            if batch and (len(batch) == BATCH_ENTRIES or size + entry.size > BATCH_SIZE):
                break
            batch.append(entry)
            size += entry.size
        return batch

    async def _append(self, batch: list[NewEntry]) -> None:
        """Append, again and again while Redis is away: the script drops what is there already."""
        loop, telemetry = asyncio.get_running_loop(), self._telemetry
        first_sent_at = sent_at = loop.time()
        give_up_at: float | None = None
        pause = RETRY_FIRST.total_seconds()
        while True:
            try:
                appended = await self._store.append(self.attempt, self._next_sequence, batch)
            except RedisError as error:
                telemetry.redis_failed("append", error)
                give_up_at = give_up_at or loop.time() + self._patience
                if loop.time() >= give_up_at:
                    raise StreamUnavailable from error
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, RETRY_MOST.total_seconds())
                self.retries += 1
                telemetry.append_retried()
                sent_at = loop.time()
            else:
                self.appends += 1
                telemetry.appended(len(batch), loop.time() - sent_at)
                if give_up_at is not None:
                    telemetry.redis_answered()
                self._note(appended, first_sent_at)
                return

    def _note(self, appended: Appended, sent_at: float) -> None:
        milliseconds = appended.entry_ids[-1].partition("-")[0]
        if milliseconds:
            self._redis_clock = (int(milliseconds), sent_at)
        if appended.cancel_requested:
            self._on_cancel()
