"""Follows a conversation while it happens. It reads as any reader does, but ends no run: it only looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from inspector.timeline import RunTimeline, Step, TimelineBuilder
from inspector.trouble import explain
from streaming.durable_answer import Restore
from streaming.errors import StreamUnavailable
from streaming.reading.liveness import ProducerCheck
from streaming.reading.reader import StreamReader
from streaming.store.conversations import RunRecord
from streaming.store.run_states import RunState
from streaming.store.run_store import RunStore
from streaming.text_blocks import Part, chunks_of

#: Text that goes on is told this often.
TELL_EVERY: Final = timedelta(seconds=1)
#: How long a conversation that is not there yet is waited for.
APPEAR_TIMEOUT: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Told:
    """What a follower hears: a step, or that entries are missing, or that nothing comes."""

    run: RunTimeline | None = None
    step: Step | None = None
    #: Why a reader was told of a gap, or to discard what it had, by its reader and not by an entry.
    notice: str | None = None
    #: Nothing came for a while; the run as it is stored.
    silent: RunRecord | None = None


async def follow(
    runs: RunStore, reader: StreamReader, conversation_id: str, *, run: str | None, forever: bool, said: bool
) -> AsyncGenerator[Told, None]:
    """Tell what happens in the latest run from its start, up to its end; or on through later runs.

    Raises:
        StreamingError: what ``StreamReader.open`` raises; ``StreamUnavailable`` too where Redis stays away.
    """
    opened = await reader.open(
        conversation_id,
        run=run,
        follow=forever,
        appear_timeout=APPEAR_TIMEOUT,
        heartbeat=TELL_EVERY,
    )
    builder = TimelineBuilder(await _records(runs, conversation_id, run), keep_said=said)
    clock = asyncio.get_running_loop().time
    told_at = clock()
    try:
        async for batch in opened:
            for told in _taken(builder, batch):
                yield told
            if not batch or clock() - told_at >= TELL_EVERY.total_seconds():
                told_at = clock()
                for told in _flushed(builder):
                    yield told
            if not batch:
                latest = await _records(runs, conversation_id, run)
                yield Told(builder.latest, silent=latest[-1] if latest else None)
        for told in _flushed(builder):
            yield told
    finally:
        await opened.aclose()
    if opened.cut_short:
        raise StreamUnavailable


def _taken(builder: TimelineBuilder, batch: Sequence[Part]) -> Iterator[Told]:
    for chunk in chunks_of(batch):
        if chunk.is_entry:
            for timeline, step in builder.take(chunk):
                yield Told(timeline, step)
        else:
            yield Told(notice=f"{chunk.type}: {(chunk.data or {}).get('reason', '')}")


def _flushed(builder: TimelineBuilder) -> Iterator[Told]:
    for timeline, step in builder.flush():
        yield Told(timeline, step)


class _OnlyLooks(ProducerCheck):
    """Ends no run: one that seems dead may be resumed by a scheduler, which this program does not know."""

    async def ended(self, state: RunState, restore: Restore | None = None) -> bool:
        """Whether the run has ended."""
        del restore
        return state.status.is_terminal


def reader_that_only_looks(runs: RunStore) -> StreamReader:
    """A reader that changes nothing, whatever has become of a run's producer."""
    return StreamReader(runs, producers=_OnlyLooks(runs, timedelta(0)))


async def _records(runs: RunStore, conversation_id: str, run: str | None) -> list[RunRecord]:
    try:
        stored = await runs.conversations.look(conversation_id)
    except RedisError as error:
        raise explain(error) from error
    records = stored.runs if stored is not None else ()
    return [record for record in records if run is None or record.run == run]
