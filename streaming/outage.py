"""Says once that Redis is away, and once that it is back, however many notice.

While Redis is away every run, reader and lease meets it again and again: a line for each of them would be
hundreds in a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

_log = logging.getLogger(__name__)

#: What fails within this time after Redis came back was most likely sent before: it is told if it goes on.
STRAGGLERS: Final = timedelta(seconds=5)
#: After trouble with Redis, a reader's next try comes after this pause.
RETRY_PAUSE: Final = timedelta(milliseconds=200)


class Outage:
    """Whether Redis is away, by what all of a process's threads have met."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds that never go back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = False
        self._failures = 0
        self._back_at = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether Redis is away."""
        return self._since is not None

    def failed(self, at: str, error: BaseException) -> None:
        """Something that was asked of Redis failed; ``at`` says in a word what."""
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since, self._failures, self._told = now, 0, False
            self._failures += 1
            if not self._told and now - self._back_at >= STRAGGLERS.total_seconds():
                self._told = True
                _log.warning("redis away, retrying: at=%s error=%s", at, type(error).__name__)
        _log.debug("redis failed: at=%s error=%s", at, type(error).__name__)

    def ended(self) -> None:
        """Something that had failed has succeeded."""
        if not self.is_on:
            return
        with self._lock:
            since, self._since = self._since, None
            if since is None:
                # Another thread was faster.
                return
            now = self._back_at = self._clock()
            if self._told:
                _log.warning("redis back: away_seconds=%.1f failures=%d", now - since, self._failures)
