"""One object for each event loop.

A Redis client belongs to the loop that opened it, and a process here has several loops: the HTTP server's
(or the Functions worker's), the agents', and the lease keeper's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class LoopLocal(Generic[T]):
    """Makes an object for the running loop when it is first asked for there."""

    def __init__(self, create: Callable[[], T]) -> None:
        self._create = create
        self._objects: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self) -> T:
        """The running loop's own object.

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._objects.get(loop)
            if found is None:
                found = self._objects[loop] = self._create()
            return found

    def discard(self) -> T | None:
        """Take the running loop's object out, to close it."""
        with self._lock:
            return self._objects.pop(asyncio.get_running_loop(), None)
