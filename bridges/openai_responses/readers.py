"""A run read from its stream as ``client.responses.create(stream=True)`` gives it: typed events, to iterate.

Besides the API's events there are ``reset`` (discard the text so far) and ``gap`` (events are missing here),
as the stream's own chunks: ``event.type`` tells. A run whose end the API didn't tell ends with an ``error``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from bridges.background_streams import BackgroundStreams
from bridges.event_stream import entries_in_context
from bridges.openai_responses.events import ResponseEvent, ResponseReplay
from redis_stream_response_handler import RedisStreamResponseHandler


class AsyncResponseReader:
    """Reads a conversation's stream, as the vendor's ``AsyncStream`` is read."""

    def __init__(
        self, handler: RedisStreamResponseHandler, conversation_id: str, cursor: str | None = None
    ) -> None:
        """Read from ``cursor``.

        Args:
            handler: The event loop's own.
            conversation_id: The conversation.
            cursor: ``None``: its latest run from the start. One that ``cursor`` gave: strictly after it. Also
                ``"0"`` and ``"$"``, as ``read_stream`` takes them.
        """
        #: The entry id of the last event that was given: keep it, to read on strictly after it.
        self.cursor = cursor
        self._events = self._made_again(handler, conversation_id)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ResponseEvent:
        """The next event."""
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        """Enter; nothing is read before it is asked for."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the stream."""
        await self.close()

    async def close(self) -> None:
        """Leave the stream."""
        await self._events.aclose()

    async def _made_again(
        self, handler: RedisStreamResponseHandler, conversation_id: str
    ) -> AsyncGenerator[ResponseEvent, None]:
        replay = ResponseReplay()
        entries = entries_in_context(handler, conversation_id, self.cursor, replay.event)
        async with aclosing(entries):
            async for chunk in entries:
                event = replay.event(chunk)
                if event is not None:
                    self.cursor = chunk.entry_id
                    yield event


class ResponseReader:
    """``AsyncResponseReader`` for programs without an event loop."""

    def __init__(self, streams: BackgroundStreams, conversation_id: str, cursor: str | None = None) -> None:
        """Read through ``streams``; the rest as with the asynchronous one.

        Raises:
            StreamUnavailable: ``streams`` is not open.
        """
        self._streams = streams
        self._reader = AsyncResponseReader(streams.handler, conversation_id, cursor)
        self._events = streams.iterate(self._reader)

    @property
    def cursor(self) -> str | None:
        """The entry id of the last event that was given: keep it, to read on strictly after it."""
        return self._reader.cursor

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ResponseEvent:
        """The next event."""
        return next(self._events)

    def __enter__(self) -> Self:
        """Enter; nothing is read before it is asked for."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the stream."""
        self.close()

    def close(self) -> None:
        """Leave the stream."""
        self._streams.call(self._reader.close())
