"""Event handlers for ``client.runs.stream(…)`` that write every event into a conversation's stream.

The vendor's handlers swallow what their ``on_*`` methods raise, so these don't write there: they stand
between the service's bytes and the vendor's handler. An event is on its way into the stream before the
handler hears of it, and a failure of Redis comes out of the iteration or ``until_done()``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

from azure.ai.agents.models import (
    AgentEventHandler,
    AsyncAgentEventHandler,
    BaseAgentEventHandler,
    BaseAsyncAgentEventHandler,
    StreamEventData,
    ThreadRun,
)
from azure.core.exceptions import AzureError

from bridges.azure_ai_agents.events import AgentEvents, EventFrames
from bridges.background_streams import BackgroundStreams
from bridges.event_stream import RunRecording, RunStopped, connection_lost, failure_of, terminal_entry
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry, RunStatus
from streaming.writing.leases import LeaseKeeper
from streaming.writing.writer import PATIENCE

#: What the run's status calls the agent, where the program doesn't say.
AGENT: Final = "AzureAIAgent"

_Item = tuple[str, StreamEventData, Any]


class AsyncRecordingAgentEventHandler(AsyncAgentEventHandler[Any]):
    """Records one run, whatever number of responses it has (tool outputs that are submitted begin another).

    Use it as a context manager around the call of ``stream``: then a run that never starts, that waits for
    tool outputs which never come, or that the program leaves, has its end too. ``on_*`` may be overridden.
    """

    def __init__(
        self,
        handler: RedisStreamResponseHandler,
        conversation_id: str,
        *,
        leases: LeaseKeeper,
        agent: str = AGENT,
        run: str | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        """Record into a conversation; the service's thread id will do for its id.

        Args:
            handler: The event loop's own.
            conversation_id: 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
            leases: Keep the run alive to its readers while the agent is silent.
            agent: The agent's name, which the run's status tells.
            run: The run's id; a new one if it is left out.
            patience: How long Redis may stay away before the iteration raises ``StreamUnavailable``.

        Raises:
            InvalidInput: an id can't be used.
        """
        super().__init__()
        self._recording = RunRecording(
            handler, conversation_id, leases=leases, agent=agent, run=run, patience=patience
        )
        self._events = AgentEvents()

    @property
    def run(self) -> str:
        """The run's id in the stream."""
        return self._recording.run

    @property
    def status(self) -> RunStatus | None:
        """How the run ended; ``None`` while it goes on."""
        return self._recording.status

    async def __aenter__(self) -> Self:
        """Make the run known, so that its readers may come before its first event."""
        await self._recording.begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run, if the service has not."""
        await self._leave(_outcome_of(exc_value))

    def initialize(
        self,
        response_iterator: AsyncIterator[bytes],
        submit_tool_outputs: Callable[[ThreadRun, BaseAsyncAgentEventHandler[Any], bool], Awaitable[Any]],
    ) -> None:
        """Take the bytes of a response; the vendor's client calls this for each."""
        super().initialize(self._recorded(response_iterator), submit_tool_outputs)

    async def __anext__(self) -> _Item:
        """The next event, once it is on its way into the stream.

        Raises:
            StreamUnavailable: Redis stayed away too long.
            WriterRefused: the run has ended elsewhere.
        """
        try:
            self._recording.raise_if_stopped()
            item: _Item = await self._recording.interruptible(super().__anext__())
        except StopAsyncIteration:
            await self._recording.put(self._events.finish())
            raise
        except RunStopped:
            await self._leave(terminal_entry(RunStatus.CANCELLED))
            raise StopAsyncIteration from None
        except BaseException as error:
            await self._leave(_outcome_of(error))
            raise
        return item

    async def _recorded(self, response: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        frames = EventFrames()
        async for piece in response:
            for event, data, frame in frames.feed(piece):
                await self._recording.put(self._events.entries(event, data))
                yield frame
        for event, data, frame in frames.rest():
            await self._recording.put(self._events.entries(event, data))
            yield frame

    async def _leave(self, terminal: NewEntry) -> None:
        for entry in self._events.leave(terminal):
            await self._recording.end(entry, hurry=True)


class RecordingAgentEventHandler(AgentEventHandler[Any]):
    """``AsyncRecordingAgentEventHandler`` for programs without an event loop.

    A cancel is noticed at the next event: nothing can interrupt a blocking read.
    """

    def __init__(
        self,
        streams: BackgroundStreams,
        conversation_id: str,
        *,
        agent: str = AGENT,
        run: str | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        """Record into a conversation through ``streams``; the rest as with the asynchronous one.

        Raises:
            InvalidInput: an id can't be used.
            StreamUnavailable: ``streams`` is not open.
        """
        super().__init__()
        self._streams = streams
        self._recording = RunRecording(
            streams.handler, conversation_id, leases=streams.leases, agent=agent, run=run, patience=patience
        )
        self._events = AgentEvents()

    @property
    def run(self) -> str:
        """The run's id in the stream."""
        return self._recording.run

    @property
    def status(self) -> RunStatus | None:
        """How the run ended; ``None`` while it goes on."""
        return self._recording.status

    def __enter__(self) -> Self:
        """Make the run known, so that its readers may come before its first event."""
        self._streams.call(self._recording.begin())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run, if the service has not."""
        self._leave(_outcome_of(exc_value))

    def initialize(
        self,
        response_iterator: Iterator[bytes],
        submit_tool_outputs: Callable[[ThreadRun, BaseAgentEventHandler[Any], bool], Any],
    ) -> None:
        """Take the bytes of a response; the vendor's client calls this for each."""
        super().initialize(self._recorded(response_iterator), submit_tool_outputs)

    def __next__(self) -> _Item:
        """The next event, once it is on its way into the stream.

        Raises:
            StreamUnavailable: Redis stayed away too long.
            WriterRefused: the run has ended elsewhere.
        """
        try:
            self._recording.raise_if_stopped()
            item: _Item = super().__next__()
        except StopIteration:
            self._put(self._events.finish())
            raise
        except RunStopped:
            self._leave(terminal_entry(RunStatus.CANCELLED))
            raise StopIteration from None
        except BaseException as error:
            self._leave(_outcome_of(error))
            raise
        return item

    def _recorded(self, response: Iterator[bytes]) -> Iterator[bytes]:
        frames = EventFrames()
        for piece in response:
            for event, data, frame in frames.feed(piece):
                self._put(self._events.entries(event, data))
                yield frame
        for event, data, frame in frames.rest():
            self._put(self._events.entries(event, data))
            yield frame

    def _put(self, entries: Iterable[NewEntry]) -> None:
        self._streams.call(self._recording.put(entries))

    def _leave(self, terminal: NewEntry) -> None:
        for entry in self._events.leave(terminal):
            self._streams.call(self._recording.end(entry, hurry=True))


def _outcome_of(error: BaseException | None) -> NewEntry:
    """How a run ends that an error ended. One of the vendor's that is no answer is a broken connection."""
    if isinstance(error, AzureError) and getattr(error, "status_code", None) is None:
        return connection_lost()
    return failure_of(error)
