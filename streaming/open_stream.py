"""An open read: replay what is stored, then follow what comes, to the end of what the read covers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streaming.entries import GAP, StreamChunk
from streaming.follower import RETRY_PAUSE, LiveStream, StreamFollower
from streaming.identifiers import EntryId, keys_of
from streaming.liveness import LIVENESS_INTERVAL, ProducerWatch
from streaming.run_store import RunState, RunStore
from streaming.span import Span
from streaming.stored_entries import PAGE, entries_after

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: How long Redis may stay away while somebody reads, before the reader is sent away to come back.
PATIENCE: Final = timedelta(seconds=60)
LOST_MESSAGE: Final = "The stream was deleted or has expired before the run ended."
LOST_CODE: Final = "stream_lost"


class OpenStream:
    """A read that has its start. Iterating it gives batches of chunks in order.

    An empty batch is a heartbeat. Iteration ends after the last chunk that the read covers; if the service
    stops or Redis stays away it ends early, and ``cut_short`` tells.
    """

    def __init__(
        self,
        redis: Redis,
        runs: RunStore,
        follower: StreamFollower,
        conversation_id: str,
        span: Span,
        *,
        follow: bool,
        heartbeat: timedelta,
        dead_after: timedelta,
    ) -> None:
        self._redis = redis
        self._runs = runs
        self._follower = follower
        self._dead_after = dead_after
        self._conversation_id = conversation_id
        self._keys = keys_of(conversation_id)
        self._span = span
        self._follow = follow
        self._heartbeat = heartbeat.total_seconds()
        self._cursor = span.start
        self._expected = span.expected
        self._at_terminal = False
        self.cut_short = False

    @property
    def has_nothing_more(self) -> bool:
        """The cursor stands at the end of what there is, and nothing more is to come."""
        return self._span.finished and not self._follow

    async def __aiter__(self) -> AsyncGenerator[list[StreamChunk], None]:
        if self.has_nothing_more:
            return
        if self._span.gap:
            yield [_gap(self._cursor, "entries after the cursor are no longer retained")]
        for source in (self._replayed, self._followed):
            async with aclosing(source()) as batches:
                async for batch in batches:
                    shown, ended = self._show(batch)
                    if shown or not batch:
                        yield shown
                    if ended and not await self._goes_on():
                        return

    async def _replayed(self) -> AsyncGenerator[list[StreamChunk], None]:
        """What is in Redis already, page by page, without following anything yet."""
        full = True
        while full:
            page = await self._patiently(self._page)
            if page is None:
                return
            full = len(page) == PAGE
            if page:
                yield page

    async def _followed(self) -> AsyncGenerator[list[StreamChunk], None]:
        state = await self._patiently(self._tracked_state)
        foreign = self._follow or state is None or state.status.is_terminal
        give_up_at = asyncio.get_running_loop().time() + PATIENCE.total_seconds()
        while not (self.cut_short or self._follower.closed):
            try:
                async with (
                    self._follower.follow(self._keys, foreign=foreign) as live,
                    aclosing(self._live(live)) as batches,
                ):
                    async for batch in batches:
                        yield batch
                return
            except RedisError:
                if asyncio.get_running_loop().time() >= give_up_at:
                    break
                await asyncio.sleep(RETRY_PAUSE.total_seconds())
        self.cut_short = True

    async def _live(self, live: LiveStream) -> AsyncGenerator[list[StreamChunk], None]:
        silent_since = asyncio.get_running_loop().time()
        watch = live.watches.setdefault(
            self._span.run, ProducerWatch(self._runs, self._conversation_id, self._span.run, self._dead_after)
        )
        while not (self._follower.closed or self.cut_short):
            if live.covers(self._cursor):
                batch = live.after(self._cursor)
            else:
                batch = await self._patiently(self._page) or []
                if not batch:
                    # Nothing between the cursor and what memory covers (its entries were deleted).
                    self._cursor = max(self._cursor, live.start)
                    continue
            if batch:
                silent_since = asyncio.get_running_loop().time()
                yield batch
                continue
            if await live.wait(min(self._heartbeat, LIVENESS_INTERVAL.total_seconds())):
                continue
            if await watch.is_lost():
                yield self._end_of_lost_stream()
                return
            self._follower.look_again(live)
            if asyncio.get_running_loop().time() - silent_since >= self._heartbeat:
                silent_since = asyncio.get_running_loop().time()
                yield []
        self.cut_short = True

    def _end_of_lost_stream(self) -> list[StreamChunk]:
        """Nothing can be stored any more, so the reader itself says that it is over."""
        if self._at_terminal:
            return []
        return [StreamChunk(entry_id=str(self._cursor), error=LOST_MESSAGE, code=LOST_CODE)]

    async def _page(self) -> list[StreamChunk]:
        """The next stored entries."""
        return await entries_after(self._redis, self._keys.stream, self._cursor)

    async def _tracked_state(self) -> RunState | None:
        """The registered run that this read waits for."""
        runs = self._runs
        if self._span.run is not None:
            return await runs.state(self._conversation_id, self._span.run)
        return await runs.latest_run(self._conversation_id)

    async def _goes_on(self) -> bool:
        """Whether a read of everything goes on after a terminal."""
        if self._span.first_terminal:
            return False
        if await self._patiently(self._page):
            return True
        latest = await self._patiently(self._tracked_state)
        return latest is not None and not latest.status.is_terminal

    def _show(self, batch: list[StreamChunk]) -> tuple[list[StreamChunk], bool]:
        """The batch as this read shows it, up to its end; and whether that came."""
        shown: list[StreamChunk] = []
        for chunk in batch:
            if chunk.code != LOST_CODE:
                self._cursor = chunk.id
            if self._span.run is not None and chunk.run != self._span.run and chunk.code != LOST_CODE:
                continue
            missing = self._missing_before(chunk)
            if missing is not None:
                shown.append(missing)
            shown.append(chunk)
            self._at_terminal = chunk.is_terminal
            if chunk.is_terminal and not self._follow and (self._span.first_terminal or chunk is batch[-1]):
                return shown, True
        return shown, False

    def _missing_before(self, chunk: StreamChunk) -> StreamChunk | None:
        """A ``gap`` where a registered run's sequence has a hole: entries were deleted."""
        if chunk.run is None or chunk.sequence is None:
            return None
        expected, self._expected = self._expected, (chunk.run, chunk.attempt, chunk.sequence + 1)
        if expected is None or expected[:2] != (chunk.run, chunk.attempt) or expected[2] >= chunk.sequence:
            return None
        return _gap(self._cursor, f"entries {expected[2]} to {chunk.sequence - 1} are no longer retained")

    async def _patiently(self, read: Callable[[], Awaitable[_T]]) -> _T | None:
        """Read from Redis, again while it is away; ``None`` once the read is cut short."""
        give_up_at = asyncio.get_running_loop().time() + PATIENCE.total_seconds()
        while True:
            try:
                return await read()
            except RedisError as error:
                _log.warning("stream read failed, retrying: error=%s", type(error).__name__)
                if self._follower.closed or asyncio.get_running_loop().time() >= give_up_at:
                    self.cut_short = True
                    return None
            await asyncio.sleep(RETRY_PAUSE.total_seconds())


def _gap(cursor: EntryId, reason: str) -> StreamChunk:
    return StreamChunk(entry_id=str(cursor), type=GAP, data={"reason": reason})
