"""A run read from its stream as ``client.runs.stream(…)`` gives it: to iterate, or to an event handler.

Any event handler of the vendor's SDK serves, unchanged, in another process than the one that runs the agent.
Besides the service's events it hears, as unhandled ones, of ``reset`` (discard the text so far) and ``gap``
(events are missing here).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from azure.ai.agents.models import (
    AgentEventHandler,
    AgentRunStream,
    AsyncAgentEventHandler,
    AsyncAgentRunStream,
    BaseAgentEventHandler,
    BaseAsyncAgentEventHandler,
)

from bridges.azure_ai_agents.events import AgentReplay
from bridges.background_streams import BackgroundStreams
from bridges.event_stream import entries_in_context
from redis_stream_response_handler import RedisStreamResponseHandler


class AsyncAgentRunReader(AsyncAgentRunStream[BaseAsyncAgentEventHandler[Any]]):
    """Reads a conversation's stream; ``async with`` gives the event handler, as the service's does.

    A run whose producer died, or that Redis doesn't have, ends with an ``error`` event. Tools are run by the
    producer alone: a reader hears of them.
    """

    def __init__(
        self,
        handler: RedisStreamResponseHandler,
        conversation_id: str,
        cursor: str | None = None,
        *,
        event_handler: BaseAsyncAgentEventHandler[Any] | None = None,
    ) -> None:
        """Read from ``cursor``.

        Args:
            handler: The event loop's own.
            conversation_id: The conversation.
            cursor: ``None``: its latest run from the start. One that ``cursor`` gave: strictly after it. Also
                ``"0"`` and ``"$"``, as ``read_stream`` takes them.
            event_handler: Hears of the events; without one, iterate.
        """
        self._replay = _Replay(handler, conversation_id, cursor)
        super().__init__(self._replay, _no_submission, event_handler or AsyncAgentEventHandler())

    @property
    def cursor(self) -> str | None:
        """The entry id of the last event that was given: keep it, to read on strictly after it."""
        return self._replay.cursor


class AgentRunReader(AgentRunStream[BaseAgentEventHandler[Any]]):
    """``AsyncAgentRunReader`` for programs without an event loop."""

    def __init__(
        self,
        streams: BackgroundStreams,
        conversation_id: str,
        cursor: str | None = None,
        *,
        event_handler: BaseAgentEventHandler[Any] | None = None,
    ) -> None:
        """Read through ``streams``; the rest as with the asynchronous one.

        Raises:
            StreamUnavailable: ``streams`` is not open.
        """
        self._replay = _BlockingReplay(streams, _Replay(streams.handler, conversation_id, cursor))
        super().__init__(self._replay, _no_blocking_submission, event_handler or AgentEventHandler())

    @property
    def cursor(self) -> str | None:
        """The entry id of the last event that was given: keep it, to read on strictly after it."""
        return self._replay.source.cursor


class _Replay(AsyncIterator[bytes]):
    """The service's bytes, made again from the stream: one event each time, so that the cursor is its own."""

    def __init__(self, handler: RedisStreamResponseHandler, conversation_id: str, cursor: str | None) -> None:
        self.cursor = cursor
        self._events = self._made_again(handler, conversation_id)

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def close(self) -> None:
        """Leave; the vendor's stream calls this at the end of its ``with``."""
        await self._events.aclose()

    async def _made_again(
        self, handler: RedisStreamResponseHandler, conversation_id: str
    ) -> AsyncGenerator[bytes, None]:
        replay = AgentReplay()
        entries = entries_in_context(handler, conversation_id, self.cursor, replay.event)
        async with aclosing(entries):
            async for chunk in entries:
                event = replay.event(chunk)
                if event is not None:
                    self.cursor = chunk.entry_id
                    yield event


class _BlockingReplay(Iterator[bytes]):
    def __init__(self, streams: BackgroundStreams, source: _Replay) -> None:
        self.source = source
        self._streams = streams
        self._items = streams.iterate(source)

    def __next__(self) -> bytes:
        return next(self._items)

    def close(self) -> None:
        """Leave; the vendor's stream calls this at the end of its ``with``."""
        self._streams.call(self.source.close())


async def _no_submission(*_arguments: object) -> list[Any]:
    """Submit no tool outputs: the producer does, once."""
    return []


def _no_blocking_submission(*_arguments: object) -> list[Any]:
    """Submit no tool outputs: the producer does, once."""
    return []
