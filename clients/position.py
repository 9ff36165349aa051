"""Where a reader stands in a stream: its cursor, and which of the events that come are new to it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from clients.events import STREAM_LOST, EndStatus, Failed, StreamEvent, decode_event
from streaming.sse import ServerSentEvent

_ENTRY_ID: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


class EntryId(NamedTuple):
    """An entry id, ordered as Redis orders it: as two numbers, not as text."""

    milliseconds: int
    counter: int


def parse_entry_id(text: str) -> EntryId | None:
    """Read ``<milliseconds>-<counter>`` or ``<milliseconds>``; ``None``: it is neither."""
    match = _ENTRY_ID.fullmatch(text)
    return EntryId(int(match[1]), int(match[2] or 0)) if match else None


class Position:
    """Takes events in the order in which they come, over any number of connections."""

    def __init__(self, cursor: str | None = None) -> None:
        """Stand after ``cursor``, as the caller gave it."""
        #: What to send as ``Last-Event-ID``; ``None``: no event has had an id.
        self.last_event_id: str | None = None
        self._start = cursor
        #: Ids up to this one are duplicates.
        self._floor = parse_entry_id(cursor) if cursor else None
        self._end = EndStatus.COMPLETED

    @property
    def cursor(self) -> str | None:
        """Where the stream can be read on."""
        return self.last_event_id or self._start

    def forget(self) -> None:
        """Stand at the beginning: the service no longer knows the cursor."""
        self.last_event_id = self._start = self._floor = None

    def take(self, event: ServerSentEvent) -> StreamEvent | None:
        """The event as the reader is given it; ``None``: it has had it, or it says something of the next."""
        if event.event == EndStatus.CANCELLED and not event.has_own_id:
            self._end = EndStatus.CANCELLED
            return None
        if not event.has_own_id:
            if event.event == "reset":
                # The run comes again from its start, under ids that may have been here before.
                self._floor = None
            return decode_event(event, self.cursor, self._end)
        taken = decode_event(event, event.id or None, self._end)
        if isinstance(taken, Failed) and taken.code == STREAM_LOST:
            # No entry: its id is the cursor of the service's reader.
            return Failed(taken.code, taken.message, cursor=self.cursor)
        entry_id = parse_entry_id(event.id)
        if entry_id is not None:
            if self._floor is not None and entry_id <= self._floor:
                return None
            self._floor = entry_id
        self.last_event_id = event.id or None
        self._end = EndStatus.COMPLETED
        return taken
