"""Ends tasks for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

#: A cancel that meets a reply of Redis in the same turn of the loop is swallowed: the driver sends through
#: ``asyncio.wait_for``, which up to Python 3.11 returns the result then. So a task that is still there after
#: this many seconds is cancelled again.
_AGAIN_SECONDS: Final = 0.05


def raise_if_cancelled() -> None:
    """Raise what a swallowed cancel would have raised; for loops that only a cancel ends.

    Raises:
        asyncio.CancelledError: the current task was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended. Their errors count no more."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()
