"""The line between the code that writes a run's stream and the code that executes the run.

The framework gives a callback the run's ids, and gives the agent none; and it swallows what a callback
raises. Both are called in one asyncio task, so a context variable set by the callback reaches the agent.
"""

from __future__ import annotations

import asyncio
import enum
import math
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Final


class StopReason(enum.Enum):
    """Why an execution should stop."""

    #: Somebody asked for it: the partial answer stays.
    CANCELLED = "cancelled"
    #: It has taken longer than it may: the partial answer stays.
    TIMED_OUT = "timed_out"
    #: The run has ended, or a later attempt has it: nothing of this execution may be kept.
    SUPERSEDED = "superseded"


class RunControl:
    """Stops one execution of a run, from any thread. Made on the loop that executes it."""

    def __init__(self, conversation_id: str, run: str) -> None:
        self.conversation_id = conversation_id
        self.run = run
        #: Of the attempt that it has begun; 0: none yet.
        self.attempt = 0
        #: The run's ``RunState.trace``.
        self.trace = ""
        #: When an append last renewed the run's lease, by the process's monotonic clock, in seconds.
        self.lease_renewed_at = -math.inf
        #: Names under which this execution has begun attempts: a new one each time that it writes again.
        self.owners: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._reason: StopReason | None = None
        self._asked: set[StopReason] = set()
        #: How often ``stop`` has cancelled the task, as far as that was not taken back.
        self._cancels = 0
        #: The task that ``stop`` cancels.
        self.waiting: asyncio.Task[object] | None = None

    def __str__(self) -> str:
        return f"conversation={self.conversation_id} run={self.run}"

    @property
    def stop_reason(self) -> StopReason | None:
        """Why to stop; ``None``: go on."""
        return self._reason

    def stop(self, reason: StopReason) -> None:
        """Ask the execution to stop, now if it waits for the model or a tool.

        The first reason counts, but that nothing may be kept counts more than the others.
        """
        if _running_loop() is self._loop:
            self._stop(reason)
            return
        # A closed loop raises: the execution is gone with it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop, reason)

    def _stop(self, reason: StopReason) -> None:
        if reason in self._asked:
            return
        self._asked.add(reason)
        if self._reason is None or reason is StopReason.SUPERSEDED:
            self._reason = reason
        if self.waiting is not None:
            # For a later reason too: what the first has interrupted may hang while it cleans up.
            self.waiting.cancel()
            self._cancels += 1

    def take_back_cancels(self) -> None:
        """Leave the current task as it was before ``stop`` cancelled it: what it waited for has ended."""
        task = asyncio.current_task()
        while self._cancels and task is not None:
            self._cancels -= 1
            task.uncancel()

    def interruptible(self) -> _Interruptible:
        """While inside, ``stop`` cancels the current task, which then sees ``CancelledError`` here."""
        return _Interruptible(self)


class _Interruptible:
    """A generator would do, at several times the price; a run has one for each update of its model."""

    __slots__ = ("_control",)

    def __init__(self, control: RunControl) -> None:
        self._control = control

    def __enter__(self) -> None:
        self._control.waiting = asyncio.current_task()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._control.waiting = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


#: The run that the current task executes.
current_run: Final[ContextVar[RunControl | None]] = ContextVar("current_run", default=None)
