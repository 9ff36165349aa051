"""When Python looks for garbage in cycles: often and among little, since each look stops all readers.

Chunks and readers leave no such garbage, but each reader is some ninety objects that the collector knows. As
Python would have it, it looks at all of them again and again while they come, and at ten thousand readers for
most of a second at a time. So what has been looked at and found alive is set aside, until memory grows.

A run is another matter: it leaves a thousand objects in cycles, nearly all of them its framework's. While one
is executed nothing is set aside.

From Python 3.14 on the collector looks at a part of what is old at a time, by itself, and is left to that.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Objects that are made before Python looks among the young: a millisecond or two. (As often as Python would,
#: every 700, is for nothing.)
YOUNG_OBJECTS: Final = 2_000
#: How many such looks come before one among the older, and of those before one among all that is not set
#: aside: some five, and some fifteen milliseconds.
LOOKS: Final = (4, 1)
#: With runs that is all that lives, and to look at it as often would take a quarter of their time. What they
#: leave from one such look to the next takes some 50 MB.
LOOKS_WITH_RUNS: Final = (4, 15)
#: How much memory grows before what was set aside is looked at again: to so many times what it was, and by no
#: more than so many bytes. Ten thousand readers take some 180 MB.
GROWTH: Final = 3
MOST_GROWTH: Final = 268_435_456

_OLDEST: Final = 2
_IS_INCREMENTAL: Final = sys.version_info >= (3, 14)
#: Linux: https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html. Its second number is in pages.
_STATM: Final = Path("/proc/self/statm")


class GarbageWatch:
    """Has the collector look at little at a time. There is one in a process."""

    def __init__(self, executes_runs: Callable[[], bool]) -> None:
        """Set nothing aside while ``executes_runs``, which is asked on any thread, and may take no lock."""
        self._executes_runs = executes_runs
        self._has_runs = False
        self._looks_at_all = False
        self._memory = 0

    def start(self) -> None:
        """Begin. What starting has made stays: it is set aside unseen, since a look takes 0.1 s."""
        gc.freeze()
        if not _IS_INCREMENTAL:
            self._memory = resident_bytes()
            gc.set_threshold(YOUNG_OBJECTS, *LOOKS)
            gc.callbacks.append(self._looked)
        gc.enable()

    def _looked(self, phase: str, info: dict[str, int]) -> None:
        if phase != "stop":
            return
        has_runs = self._executes_runs()
        if has_runs != self._has_runs:
            self._has_runs = has_runs
            gc.set_threshold(YOUNG_OBJECTS, *(LOOKS_WITH_RUNS if has_runs else LOOKS))
        if info["generation"] == _OLDEST and not has_runs:
            self._set_aside()

    def _set_aside(self) -> None:
        memory = resident_bytes()
        if not memory:
            # How much could pile up there is not known.
            return
        gc.freeze()
        if self._looks_at_all:
            self._looks_at_all = False
            self._memory = memory
        # It shrinks, too.
        self._memory = min(self._memory or memory, memory)
        if memory > min(self._memory * GROWTH, self._memory + MOST_GROWTH):
            self._looks_at_all = True
            gc.unfreeze()


def resident_bytes() -> int:
    """Memory of this process; 0 where it can't be known."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
