"""Ends what takes too long, by one timer for all: a timer of its own took half a kilobyte for each."""

from __future__ import annotations

import asyncio
from datetime import timedelta


class Deadlines:
    """Deadlines that are all equally far ahead. Used on one event loop at a time."""

    def __init__(self, longest: timedelta) -> None:
        """Give each ``longest``."""
        self._longest = longest.total_seconds()
        #: By the loop's clock. What began first comes first, so it is due first.
        self._due: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, limit: asyncio.Timeout) -> None:
        """Let a timeout that is entered expire in time, unless it is left before: see ``leave``."""
        loop = asyncio.get_running_loop()
        self._due[limit] = loop.time() + self._longest
        if self._timer is None:
            self._timer = loop.call_later(self._longest, self._end_what_is_due)

    def leave(self, limit: asyncio.Timeout) -> None:
        """Watch it no more."""
        self._due.pop(limit, None)
        if not self._due and self._timer is not None:
            # The loop may end now.
            self._timer.cancel()
            self._timer = None

    def _end_what_is_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            limit, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._end_what_is_due)
                return
            del self._due[limit]
            expire(limit)


def expire(limit: asyncio.Timeout) -> None:
    """Let a timeout expire now."""
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())
