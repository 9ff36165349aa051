"""Trails in this process: for tests, and for a process that is alone."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

from bridges.audit_trail.events import StoredEvent, Thread, TrailEvent, missing_events
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch, Selection
from streaming.identifiers import FIRST, EntryId

#: Trails, and deleted ones: the oldest make room. With Redis their number has no bound but its memory.
MOST_TRAILS: Final = 1_000


@dataclass(slots=True)
class _Run:
    execution: str = ""
    next_number: int = 0
    request: str | None = None
    is_closed: bool = False


@dataclass(slots=True)
class _Trail:
    expires: float
    events: deque[tuple[EntryId, str, TrailEvent]]
    runs: OrderedDict[str, _Run] = field(default_factory=OrderedDict)
    newest: EntryId = FIRST


@dataclass(slots=True)
class _Deleted:
    expires: float
    runs: set[str] = field(default_factory=set)


class MemoryTrailStore:
    """Trails in memory. One serves all event loops and threads of the process."""

    def __init__(
        self,
        settings: AuditTrailSettings,
        run_timeout: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep as many events, and as long, as ``settings`` say; see ``RedisTrailStore``."""
        self._max_events = settings.max_events
        self._ttl = settings.ttl.total_seconds()
        self._deleted_ttl = (settings.ttl + run_timeout).total_seconds()
        self._clock = clock
        self._lock = threading.Lock()
        self._trails: OrderedDict[Thread, _Trail] = OrderedDict()
        self._deleted: OrderedDict[Thread, _Deleted] = OrderedDict()

    async def append(self, batch: Batch) -> bool:
        """Append events; see ``TrailStore``."""
        with self._lock:
            self._expire()
            deleted = self._deleted.get(batch.thread)
            if deleted is not None and batch.run in deleted.runs:
                deleted.expires = self._clock() + self._deleted_ttl
                self._deleted.move_to_end(batch.thread)
                return False
            trail = self._trails.setdefault(batch.thread, _Trail(0.0, deque(maxlen=self._max_events)))
            return self._append(trail, batch)

    def _append(self, trail: _Trail, batch: Batch) -> bool:
        run = trail.runs.setdefault(batch.run, _Run())
        if run.execution > batch.execution:
            return False
        number = run.next_number if run.execution == batch.execution else 0
        end = batch.first + len(batch.events)
        if number >= end:
            return True
        if run.is_closed:
            return False
        run.execution, run.next_number = batch.execution, end
        run.request = run.request or batch.request
        run.is_closed = batch.events[-1].closes
        if batch.first > number:
            self._add(trail, batch.run, missing_events(batch.events[0].timestamp, batch.first - number))
        for event in batch.events[max(0, number - batch.first) :]:
            self._add(trail, batch.run, event)
        while len(trail.runs) > self._max_events:
            trail.runs.popitem(last=False)
        trail.expires = self._clock() + self._ttl
        self._trails.move_to_end(batch.thread)
        return True

    def _add(self, trail: _Trail, run: str, event: TrailEvent) -> None:
        now, newest = time.time_ns() // 1_000_000, trail.newest
        is_later = now > newest.milliseconds
        trail.newest = EntryId(now, 0) if is_later else EntryId(newest.milliseconds, newest.counter + 1)
        trail.events.append((trail.newest, run, event))

    async def read(self, thread: Thread, wanted: Selection) -> list[StoredEvent]:
        """Read events; see ``TrailStore``."""
        with self._lock:
            self._expire()
            trail = self._trails.get(thread)
            if trail is None:
                return []
            after = wanted.after or FIRST
            found = [
                StoredEvent(entry_id, run, trail.runs.get(run, _Run()).request, event)
                for entry_id, run, event in trail.events
                if entry_id > after and wanted.has(run, event)
            ]
            return found[: wanted.limit]

    async def is_settled(self, thread: Thread, run: str) -> bool:
        """Whether a run is closed or deleted; see ``TrailStore``."""
        with self._lock:
            self._expire()
            trail, deleted = self._trails.get(thread), self._deleted.get(thread)
            if deleted is not None and run in deleted.runs:
                return True
            return trail is not None and run in trail.runs and trail.runs[run].is_closed

    async def delete(self, thread: Thread, runs: Collection[str]) -> None:
        """Delete a trail; see ``TrailStore``."""
        with self._lock:
            self._expire()
            trail = self._trails.pop(thread, None)
            gone = {*runs, *(trail.runs if trail is not None else ())}
            if not gone:
                return
            deleted = self._deleted.setdefault(thread, _Deleted(0.0))
            deleted.runs |= gone
            deleted.expires = self._clock() + self._deleted_ttl
            self._deleted.move_to_end(thread)

    def _expire(self) -> None:
        now = self._clock()
        _drop_oldest(self._trails, now)
        _drop_oldest(self._deleted, now)


_Kept = TypeVar("_Kept", _Trail, _Deleted)


def _drop_oldest(held: OrderedDict[Thread, _Kept], now: float) -> None:
    """What has expired, or is too much; all are in the order in which they expire."""
    while held and (len(held) > MOST_TRAILS or next(iter(held.values())).expires <= now):
        held.popitem(last=False)
