"""What a task hub's durable state holds of a run: the truth that a stream is made from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DurableAnswer:
    """How a run ended, as the durable state remembers it."""

    agent: str
    run: str
    text: str
    #: When it ended, Unix time in milliseconds by the clock of the process that ran it.
    ended: int = 0
    #: Set when the run failed or was cancelled.
    error: str | None = None
    code: str | None = None


#: Finds the answer to a run of a conversation (``None``: the latest), whichever agent gave it. ``None``: not
#: there (yet). Raises ``TaskHubUnavailable``.
FindAnswer = Callable[[str, str | None], Awaitable[DurableAnswer | None]]

#: Makes a run (``None``: the latest) that Redis has lost readable again. Gives whether it is. Raises
#: ``TaskHubUnavailable``, or ``RedisError``.
Restore = Callable[[str, str | None], Awaitable[bool]]
