"""Has a store's writers append by a coroutine function, which may wait, fail or do something first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streaming.entries import NewEntry
from streaming.store.run_states import Appended, Attempt

#: As ``RunStore.append``.
Append = Callable[..., Awaitable[Any]]


def sending_by(append: Append) -> Callable[..., bool]:
    """``RunStore.send_append`` by a coroutine function."""
    under_way: set[asyncio.Task[None]] = set()

    def send_append(
        attempt: Attempt,
        first: int,
        entries: Sequence[NewEntry],
        on_outcome: Callable[[Appended | Exception], None],
    ) -> bool:
        async def run() -> None:
            try:
                outcome = await append(attempt, first, entries)
            except Exception as failure:  # noqa: BLE001 - it is for the writer
                outcome = failure
            on_outcome(outcome)

        task = asyncio.create_task(run())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return False

    return send_append
