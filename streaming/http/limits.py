"""How much one process takes on: streams in all and of one client, how long each lasts, runs in progress."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final

from streaming.access_settings import LimitSettings
from streaming.errors import TooManyRuns, TooManyStreams, TooManyStreamsOfClient
from streaming.text_blocks import Part

#: How long a reader waits before it reconnects, in milliseconds.
RECONNECT_MS: Final = 1_000
#: Of more readers than this each makes the time longer over which they come back: a thousand in a second is
#: what a process takes without delay, and a quarter of a minute is the most that one should wait.
SPREAD_FROM: Final = 100
SPREAD_MS_EACH: Final = 1
SPREAD_MS_MOST: Final = 15_000


class Load:
    """What this process has taken on. Used on the event loop that serves its requests."""

    def __init__(self) -> None:
        #: Streams that are open.
        self.streams = 0
        #: Redis and the task hub have been reached.
        self.has_been_ready = False
        self._of_client: Counter[str] = Counter()
        self._runs_starting = 0

    def take_stream(self, client: str, limits: LimitSettings) -> StreamPlace:
        """Take a place for one more stream. ``client`` is an address; an empty one has no limit of its own.

        Raises:
            TooManyStreams: there are as many as the limits allow; ``TooManyStreamsOfClient``: of this client.
        """
        of_each = limits.max_streams_per_client
        if client and of_each is not None and self._of_client[client] >= of_each:
            raise TooManyStreamsOfClient
        if self.streams >= limits.max_streams:
            raise TooManyStreams
        self.streams += 1
        self._of_client[client] += 1
        return StreamPlace(self, client)

    def reconnect_ms(self) -> int:
        """How long a reader that is sent away waits before it comes back, in milliseconds."""
        return RECONNECT_MS + self.spread_ms

    @property
    def spread_ms(self) -> int:
        """By how much longer this reader waits, by chance, so that not all come back at once."""
        most = min(max(0, self.streams - SPREAD_FROM) * SPREAD_MS_EACH, SPREAD_MS_MOST)
        return random.randint(0, most)  # noqa: S311 - it guards nothing

    def _stream_ended(self, client: str) -> None:
        self.streams -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            # Else it would grow by each address that was ever seen.
            del self._of_client[client]

    @contextmanager
    def run_starting(self, in_progress: int, limits: LimitSettings) -> Iterator[None]:
        """Count a run from its request to where it is in progress, so that no burst passes the limit.

        Raises:
            TooManyRuns: as many are in progress, or on their way there, as the limits allow.
        """
        if in_progress + self._runs_starting >= limits.max_runs:
            raise TooManyRuns
        self._runs_starting += 1
        try:
            yield
        finally:
            self._runs_starting -= 1


class StreamPlace:
    """One stream's place among the open ones. Given back at the latest when nobody holds it any more."""

    def __init__(self, load: Load, client: str) -> None:
        self._leave = weakref.finalize(self, load._stream_ended, client)  # noqa: SLF001 - its other half
        self._leave.atexit = False

    def give_back(self) -> None:
        """Make room for another stream. Doing it again does nothing."""
        self._leave()


class CountedBody(AsyncGenerator[bytes, None]):
    """A response's pieces, whose place is given back when they are closed, or let go of.

    No generator function: one that was never iterated runs no ``finally`` when it is closed.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], place: StreamPlace) -> None:
        self._pieces = pieces
        self._place = place

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        """The next piece. Whoever iterates closes too, and only then is the place given back."""
        # A coroutine of its own would cost each piece of each reader one more.
        return self._pieces.__anext__()

    async def asend(self, value: None) -> bytes:
        """The next piece."""
        try:
            return await self._pieces.asend(value)
        except BaseException:
            self._place.give_back()
            raise

    async def athrow(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,  # noqa: ARG002 - it is on the error
        /,
    ) -> bytes:
        """Raise inside the pieces. The forms with several arguments are the interface's, and deprecated."""
        error = value if isinstance(value, BaseException) else kind
        try:
            return await self._pieces.athrow(error)
        except BaseException:
            self._place.give_back()
            raise

    async def aclose(self) -> None:
        """End the pieces."""
        try:
            await self._pieces.aclose()
        finally:
            self._place.give_back()


class TimeLimit:
    """Says when one response of the stream route has lasted, or was silent, for long enough.

    The client then comes back with its cursor: a response that never ends would keep a connection, and the
    token that opened it, alive for ever.
    """

    def __init__(self, longest: timedelta, longest_silence: timedelta) -> None:
        self._silence = longest_silence.total_seconds()
        now = asyncio.get_running_loop().time()
        self._end = now + longest.total_seconds()
        self._entry_at = now

    def is_reached(self, batch: Sequence[Part], now: float) -> bool:
        """Whether to end after this batch, by the loop's clock; an empty one is a heartbeat."""
        if batch:
            self._entry_at = now
            if batch[-1].is_terminal:
                # Most likely the last batch: the read ends by itself.
                return False
        return now >= self._end or now - self._entry_at >= self._silence
