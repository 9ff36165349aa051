"""Ctrl-C, counted: the first one stops a run, a second one leaves it."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While inside, Ctrl-C is counted and interrupts nothing. Made on the main thread's event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._presses: asyncio.Queue[None] = asyncio.Queue()
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    async def next(self) -> None:
        """Wait for the next one."""
        await self._presses.get()

    def _pressed(self, _number: int, _frame: FrameType | None) -> None:
        # Not loop.add_signal_handler: Windows has none.
        self._loop.call_soon_threadsafe(self._presses.put_nowait, None)
