"""Where a read starts and what it covers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, NamedTuple

from streaming.errors import InvalidCursor, RunNotFound
from streaming.identifiers import FIRST, EntryId, keys_of, parse_entry_id
from streaming.store.run_states import RunState
from streaming.store.run_store import RunStore
from streaming.store.stored_entries import (
    PAGE,
    entries_after,
    entries_back,
    entry_after,
    entry_at,
    newest_entry,
)

#: No clocks of a Redis and of a reader of it are further apart: a cursor that lies further in the future is
#: made up.
CLOCKS_APART: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a client wants to read on."""

    #: Strictly after this entry; ``None`` with ``latest_run`` or ``only_new``.
    after: EntryId | None = None
    only_new: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """Read a cursor: nothing, ``0``, ``$`` or an entry id.

        Raises:
            InvalidCursor: it is none of them.
        """
        if not text:
            return cls()
        if text == "$":
            return cls(only_new=True)
        return cls(after=parse_entry_id(text))


@dataclass(frozen=True, slots=True)
class Span:
    """What a read covers."""

    start: EntryId
    #: Only this run's entries; ``None``: all.
    run: str | None = None
    #: Whether to end at the first terminal (else at a terminal with nothing after it).
    first_terminal: bool = True
    #: The cursor stands at a terminal, or nothing is going on: without new entries there is nothing to read.
    finished: bool = False
    #: The sequence that should come next, where it is known.
    expected: tuple[str, int, int] | None = None
    gap: bool = False
    #: The client is to discard what it has of the run, and gets it from its start.
    anew: bool = False


def _was_given_out(cursor: EntryId) -> bool:
    """Whether a cursor after everything may be one that Redis has forgotten."""
    return cursor.milliseconds <= (time.time() + CLOCKS_APART.total_seconds()) * 1000


class _Place(NamedTuple):
    """Where a run's entries are."""

    run: str
    #: They come after this entry id.
    start: str
    terminal: str | None


class SpanFinder:
    """Decides what a read covers."""

    def __init__(self, runs: RunStore, conversation_id: str) -> None:
        self._commands = runs.commands
        self._runs = runs
        self._conversation_id = conversation_id
        self._key = keys_of(conversation_id).stream

    async def find(self, cursor: Cursor, run: str | None) -> Span:
        """Decide.

        Raises:
            InvalidCursor: the cursor lies after everything in the stream.
            RunNotFound: the conversation has no such run.
            RedisError: Redis does not answer.
        """
        place = None if run is None else await self._place_of(run)
        if cursor.after is None and not cursor.only_new:
            return await self._from_start_of(place)
        if cursor.only_new:
            span = Span(start=await self._newest(), run=run)
        elif cursor.after is not None and cursor.after != FIRST:
            span = await self._after(cursor.after, run)
        else:
            span = Span(start=FIRST, run=run, first_terminal=run is not None)
        if place is not None and place.terminal is not None:
            # The run's end lies before the cursor: nothing of it is to come.
            return replace(span, finished=span.start >= parse_entry_id(place.terminal))
        return span

    async def _place_of(self, run: str) -> _Place:
        state = await self._runs.state(self._conversation_id, run)
        if state is not None:
            return _Place(state.run, state.start, state.terminal)
        # Its state may have expired while later runs kept the stream alive.
        after, start = FIRST, None
        while page := await entries_after(self._commands, self._key, after):
            for chunk in page:
                if chunk.run == run:
                    start = start or after
                    if chunk.is_terminal:
                        return _Place(run, str(start), chunk.entry_id)
                after = chunk.id
        raise RunNotFound

    async def _from_start_of(self, place: _Place | None) -> Span:
        if place is None:
            latest = await self._runs.latest_run(self._conversation_id)
            if latest is None:
                return Span(start=await self._start_of_latest_unregistered())
            place = _Place(latest.run, latest.start, latest.terminal)
        return Span(start=parse_entry_id(place.start), run=place.run, expected=(place.run, 1, 0))

    async def _after(self, after: EntryId, run: str | None) -> Span:
        newest = await self._newest()
        if after > newest:
            state = await self._state_of(run)
            if state is None and (run is not None or newest == FIRST):
                # Flushed since the first look.
                raise RunNotFound
            if state is not None and not state.status.is_terminal and _was_given_out(after):
                # Redis forgot it; the run's writer will write it again.
                return await self._again(after, state.run)
            # It may have been written again, to its end, since the first look.
            newest = await self._newest()
            if after > newest:
                raise InvalidCursor(
                    "cursor", str(after), f"an id that this stream has given out; its last is {newest}"
                )
        at = await entry_at(self._commands, self._key, str(after))
        if at is None:
            # Trimmed, deleted, or of another conversation: what it stood for is not known.
            following = await entry_after(self._commands, self._key, after)
            return await self._again(after, run or (following.run if following else None))
        if at.is_terminal:
            finished = run is None and await self._is_finished(after)
            return Span(start=after, run=run, finished=finished)
        expected = None
        if at.run is not None and at.sequence is not None:
            expected = (at.run, at.attempt, at.sequence + 1)
        return Span(start=after, run=run or at.run, expected=expected)

    async def _again(self, after: EntryId, run: str | None) -> Span:
        """Read on from a cursor whose entry is not there.

        What the client has of the run is not known then, since a writer that had no reply appends its entries
        again, under other ids. So a run that is retained from its first entry on is given again, after a
        ``reset``. Of others there is only the rest.
        """
        if run is not None:
            place = await self._place_of(run)
            if await self._is_whole(place, after):
                return Span(start=parse_entry_id(place.start), run=run, anew=True, expected=(run, 1, 0))
        return Span(start=after, run=run, gap=True)

    async def _is_whole(self, place: _Place, until: EntryId) -> bool:
        """Whether a run's entries are retained without a hole, from the first to the one after ``until``."""
        after, expected = parse_entry_id(place.start), (0, 0)
        while page := await entries_after(self._commands, self._key, after):
            for chunk in page:
                after = chunk.id
                if chunk.run == place.run:
                    if chunk.sequence != 0 and (chunk.attempt, chunk.sequence) != expected:
                        return False
                    expected = (chunk.attempt, (chunk.sequence or 0) + 1)
                    if after > until:
                        return True
        return True

    async def _state_of(self, run: str | None) -> RunState | None:
        if run is None:
            return await self._runs.latest_run(self._conversation_id)
        return await self._runs.state(self._conversation_id, run)

    async def _is_finished(self, terminal: EntryId) -> bool:
        if await self._newest() > terminal:
            return False
        latest = await self._runs.latest_run(self._conversation_id)
        return latest is None or latest.status.is_terminal

    async def _newest(self) -> EntryId:
        newest = await newest_entry(self._commands, self._key)
        return newest.id if newest is not None else FIRST

    async def _start_of_latest_unregistered(self) -> EntryId:
        """The terminal before the latest run's entries, found from the newest entry back."""
        before: str | None = None
        while True:
            page = await entries_back(self._commands, self._key, before)
            for place, chunk in enumerate(page):
                if chunk.is_terminal and (place > 0 or before is not None):
                    return chunk.id
            if len(page) < PAGE:
                return FIRST
            before = page[-1].entry_id
