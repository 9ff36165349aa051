"""Lets programs without an event loop write and read streams: one thread, on which one loop runs.

So that there is one writer and one reader, and no second, blocking copy of either.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.cancellation import cancel_and_wait
from streaming.errors import StreamUnavailable
from streaming.writing.leases import LeaseKeeper

_T = TypeVar("_T")

#: How long closing waits for the thread, and for what still runs on it.
STOP_TIMEOUT: Final = timedelta(seconds=10)
NOT_OPEN: Final = "BackgroundStreams is not open: use it inside its with block."


class BackgroundStreams:
    """A handler and a lease keeper on a thread of their own; ``with`` starts and ends it.

    Several threads may use it at once. Its calls block, so none may be made on an event loop.
    """

    def __init__(self, connect: Callable[[], Redis], stream_ttl: timedelta = timedelta(minutes=10)) -> None:
        """Use Redis through ``connect()``: ``streaming.connections.connect`` with its URL."""
        self._connect, self._ttl = connect, stream_ttl
        self.leases: Final = LeaseKeeper(connect, stream_ttl)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._handler: RedisStreamResponseHandler | None = None

    @property
    def handler(self) -> RedisStreamResponseHandler:
        """The handler of the thread's loop; only ``call`` may use it.

        Raises:
            StreamUnavailable: this is not started, or closed.
        """
        if self._handler is None:
            raise StreamUnavailable(NOT_OPEN)
        return self._handler

    def __enter__(self) -> Self:
        """Start the thread. Redis is connected to at the first call."""
        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(loop,), name="background-streams", daemon=True)
        self._thread.start()
        self._handler = self.call(self._new_handler())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what still runs, close the connections, end the thread."""
        self.close()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and wait for what it gives or raises; an interrupt cancels it.

        Raises:
            StreamUnavailable: this is not started, or closed.
        """
        loop = self._loop
        if loop is None:
            work.close()
            raise StreamUnavailable(NOT_OPEN)
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[_T]) -> Iterator[_T]:
        """Take an async iterator's items one by one."""
        while True:
            item = self.call(_next(source))
            if isinstance(item, _End):
                return
            yield item

    def close(self) -> None:
        """End what still runs, close the connections, end the thread. Again: nothing happens."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self.call(self._shut())
        finally:
            self._loop = self._handler = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join(STOP_TIMEOUT.total_seconds())
            self.leases.close()

    async def _new_handler(self) -> RedisStreamResponseHandler:
        return RedisStreamResponseHandler(self._connect(), self._ttl)

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(cancel_and_wait(others), STOP_TIMEOUT.total_seconds())
        await self.handler.aclose()
        await asyncio.get_running_loop().shutdown_asyncgens()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


class _End:
    """Stands for the end of an iterator: its exception can't cross to another thread."""


async def _next(source: AsyncIterator[_T]) -> _T | _End:
    return await anext(source, _End())
