"""An open read: replay what is stored, then follow what comes, to the end of what the read covers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from redis.exceptions import RedisError

from streaming.cancellation import raise_if_cancelled
from streaming.durable_answer import Restore
from streaming.errors import StreamingError
from streaming.identifiers import EntryId, keys_of
from streaming.outage import RETRY_PAUSE
from streaming.reading.follower import StreamFollower
from streaming.reading.live_stream import LiveStream, Take
from streaming.reading.liveness import ProducerCheck, ProducerWatch
from streaming.reading.span import Span
from streaming.reading.stored_pages import StoredPages
from streaming.reading.told import lost
from streaming.reading.view import View
from streaming.store.run_states import RunState
from streaming.store.run_store import RunStore
from streaming.store.stored_entries import Page
from streaming.text_blocks import Part, TextBlock

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: How long Redis may stay away while somebody reads, before the reader is sent away to come back.
PATIENCE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a read goes on once it has its start."""

    #: On through later runs.
    follow: bool
    #: How often a silent read gives an empty batch.
    heartbeat: timedelta
    #: Asked for a run that Redis loses while it is read.
    restore: Restore | None
    #: Its client came back with a cursor.
    resumed: bool = False


class OpenStream:
    """A read that has its start. Iterating it gives batches of chunks, and of blocks of them, in order.

    An empty batch is a heartbeat. Iteration ends after the last chunk that the read covers; if the service
    stops or Redis stays away it ends early, and ``cut_short`` tells.
    """

    def __init__(
        self,
        runs: RunStore,
        follower: StreamFollower,
        conversation_id: str,
        *,
        span: Span,
        producers: ProducerCheck,
        options: ReadOptions,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._runs = runs
        self.telemetry = runs.telemetry
        self._resumed = options.resumed
        self._follower = follower
        self._producers = producers
        self._restore = options.restore
        self._conversation_id = conversation_id
        self._keys = keys_of(conversation_id)
        self._pages = StoredPages(runs.commands, self._keys.stream)
        self._span = span
        self._follow = options.follow
        self._heartbeat = options.heartbeat.total_seconds()
        self._view = View(span, self.telemetry, follow=options.follow)
        self._start_told = self._end_told = False
        self._replaying = True
        self._ended = False
        self._live: LiveStream | None = None
        self._foreign = False
        self._run_has_ended = False
        #: Nothing came for a while: it is time to look whether something still can.
        self._is_overdue = False
        self._silent_since = 0.0
        self.cut_short = False
        #: Where it is set, it is given text that comes while the read waits, which is then not given by
        #: iteration; it says whether it took it.
        self.give: Take | None = None

    @property
    def has_nothing_more(self) -> bool:
        """The cursor stands at the end of what there is, and nothing more is to come."""
        return self._span.finished and not self._follow

    @property
    def covers_all_runs(self) -> bool:
        """Whether the conversation's runs are read one after the other, not only one of them."""
        return self._span.run is None

    @property
    def cursor(self) -> EntryId:
        """The last entry that was given."""
        return self._view.cursor

    @property
    def is_live(self) -> bool:
        """Whether entries are given as they are appended, after what was stored before."""
        return self._live is not None

    def __aiter__(self) -> OpenStream:
        """Iterate over the batches; once."""
        return self

    async def __anext__(self) -> list[Part]:
        """The next batch. No generators here: one that its reader leaves behind would be left open inside."""
        try:
            while not self._ended:
                live = self._live
                if live is None or self._is_due(live):
                    shown = await self._advance()
                elif batch := live.after(self._view.cursor):
                    shown, at_end = self._view.show(batch)
                    if at_end or not shown:
                        shown = await self._conclude(shown, at_end=at_end)
                    else:
                        self._silent_since = self._loop.time()
                else:
                    # Else its reader, who has left, would be noticed only by what comes next.
                    raise_if_cancelled()
                    takes = self.give is not None and self._view.cursor == live.tail
                    self._is_overdue = not await live.wait(self._heartbeat, self._take if takes else None)
                    continue
                if self._is_over():
                    # Before the last batch is given: its reader may never ask again.
                    await self.aclose()
                if shown is not None:
                    return shown
        except BaseException:
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop following. An ended or broken off read does so by itself."""
        self._ended = True
        if self._start_told and not self._end_told:
            self._end_told = True
            self.telemetry.reader_closed(cut_short=self.cut_short)
        await self._pages.aclose()
        live, self._live = self._live, None
        if live is not None:
            await self._follower.release(live, foreign=self._foreign)

    def _is_over(self) -> bool:
        return self._ended

    def _is_due(self, live: LiveStream) -> bool:
        """Whether there is more to do than to take what is in memory."""
        return (
            self._is_overdue
            or self._run_has_ended
            or self.cut_short
            or self._follower.closed
            or self._view.cursor < live.start
        )

    async def _advance(self) -> list[Part] | None:
        """One step: a batch to show, or ``None`` where this step has none."""
        if self.has_nothing_more:
            self._ended = True
            return None
        if not self._start_told:
            self._start_told = True
            self.telemetry.reader_opened(resumed=self._resumed)
            if told := self._view.told_at_start(self._span):
                return told
        batch = await (self._replay() if self._replaying else self._follow_on())
        return None if batch is None else await self._present(batch)

    async def _present(self, batch: Sequence[Part]) -> list[Part] | None:
        """What a batch has for this reader; notices the end."""
        shown, at_end = self._view.show(batch)
        return await self._conclude(shown, at_end=at_end)

    async def _conclude(self, shown: list[Part], *, at_end: bool) -> list[Part] | None:
        if at_end and not await self._goes_on():
            self._ended = True
        if not shown:
            # Entries of other runs are no sign of life to this reader.
            return self._heartbeat_if_due()
        self._silent_since = self._loop.time()
        return shown

    def _heartbeat_if_due(self) -> list[Part] | None:
        if self._loop.time() - self._silent_since < self._heartbeat:
            return None
        self._silent_since = self._loop.time()
        return []

    async def _replay(self) -> list[Part] | None:
        """A page of what is stored already; nothing is followed before that has an end."""
        page = await self._patiently(self._page)
        if page is None:
            self._replaying = False
            return None
        self._replaying = page.is_full
        self._pages.replayed(page)
        return page.parts or None

    async def _follow_on(self) -> list[Part] | None:
        """What comes next, as soon as it comes; an empty batch where nothing did for a while."""
        if self.cut_short or self._follower.closed:
            self.cut_short = self._ended = True
            return None
        live = self._live
        if live is None:
            await self._start_following()
            return None
        if not live.covers(self._view.cursor):
            stored = await self._stored()
            if stored == []:
                # Nothing between the cursor and what memory covers (its entries were deleted).
                self._view.cursor = max(self._view.cursor, live.start)
            return stored or None
        batch = live.after(self._view.cursor)
        if batch:
            return [*batch]
        if not self._is_overdue and not self._run_has_ended:
            return None
        self._is_overdue = self._run_has_ended = False
        return await self._look_after(live)

    async def _look_after(self, live: LiveStream) -> list[Part] | None:
        """Nothing came: see whether something still can, and tell that we are here."""
        if await live.watches[self._span.run].is_over():
            stored = await self._stored()
            if stored == [] and not await self._is_restored():
                self._ended = True
                return [] if self._view.at_terminal else [lost(self._view.cursor)]
            return stored or None
        return []

    async def _start_following(self) -> None:
        state = await self._patiently(self._tracked_state)
        self._foreign = self._follow or state is None or state.status.is_terminal
        # Then its end is gone from the stream: nothing is waited for.
        self._run_has_ended = self._span.run is not None and state is not None and state.status.is_terminal
        self._live = await self._patiently(lambda: self._follower.acquire(self._keys, foreign=self._foreign))
        if self._live is not None:
            self._watch(self._live)
        self._silent_since = self._loop.time()

    def _watch(self, live: LiveStream) -> None:
        """See to it that somebody looks at the run when it is silent."""
        run = self._span.run
        watch = live.watches.get(run)
        if watch is None:
            watch = live.watches[run] = ProducerWatch(self._runs, self._producers, self._conversation_id, run)
        watch.restore = watch.restore or self._restore

    async def _is_restored(self) -> bool:
        """Whether a run whose end was deleted from the stream has been written again."""
        if self._view.at_terminal or self._restore is None or self._span.run is None:
            return False
        try:
            restored = await self._restore(self._conversation_id, self._span.run)
            return restored and bool((await self._page()).parts)
        except (StreamingError, RedisError) as error:
            _log.warning("stream not rebuilt: error=%s", type(error).__name__)
            return False

    async def _page(self) -> Page:
        """The next stored entries."""
        return await self._pages.after(self._view.cursor)

    async def _stored(self) -> list[Part] | None:
        """The next stored entries, patiently."""
        page = await self._patiently(self._page)
        return None if page is None else page.parts

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
        if await self._stored():
            return True
        latest = await self._patiently(self._tracked_state)
        return latest is not None and not latest.status.is_terminal

    def _take(self, block: TextBlock, now: float) -> bool:
        """Give a block that came while the read waited, if there is no more to do than that."""
        if self.give is None or not self._view.is_next(block) or not self.give(block, now):
            return False
        self._view.pass_over(block)
        self._silent_since = now
        return True

    async def _patiently(self, read: Callable[[], Awaitable[_T]]) -> _T | None:
        """Read from Redis, again while it is away; ``None`` once the read is cut short."""
        give_up_at = self._loop.time() + PATIENCE.total_seconds()
        has_failed = False
        while True:
            try:
                answer = await read()
                if has_failed:
                    self.telemetry.redis_answered()
                return answer
            except RedisError as error:
                has_failed = True
                self.telemetry.redis_failed("read", error)
                if self._follower.closed or self._loop.time() >= give_up_at:
                    self.cut_short = True
                    return None
            await asyncio.sleep(RETRY_PAUSE.total_seconds())
