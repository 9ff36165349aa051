"""Records what ``client.responses.create(stream=True)`` gives, and resumes it where it can be.

A response in the background goes on when its connection breaks: it is then read on after the last event's
``sequence_number``. Any other ends with its connection, and its run with a reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AsyncStream,
    OpenAI,
    OpenAIError,
    Stream,
)
from openai.types.responses import Response, ResponseStreamEvent

from bridges.background_streams import BackgroundStreams
from bridges.event_stream import RunRecording, RunStopped, connection_lost, failure_of, terminal_entry
from bridges.openai_responses.events import ENDED, ENDS, ResponseEvents, snapshot_event
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry, RunStatus
from streaming.writing.leases import LeaseKeeper
from streaming.writing.writer import PATIENCE

_log = logging.getLogger(__name__)

#: What the run's status calls the agent, where the program doesn't say.
AGENT: Final = "OpenAIResponses"
#: How long a response in the background may give no event while its connection breaks again and again, before
#: its run is given up: longer than an outage that the service's own retries cover.
RESUME_PATIENCE: Final = timedelta(minutes=2)
#: Pauses between tries to resume grow from the first to the second.
RESUME_FIRST: Final = timedelta(milliseconds=100)
RESUME_MOST: Final = timedelta(seconds=5)
#: How long the API may take to hear that a response is to be cancelled.
CANCEL_TIMEOUT: Final = timedelta(seconds=5)
#: What the SDK raises when a connection breaks: the second where it looks like an end, in mid-character.
_BROKEN: Final = (APIConnectionError, UnicodeDecodeError)
#: Answers from which on another try may go better; below, but for these, the events are gone for good.
_SERVER_ERROR: Final = 500
_TRY_AGAIN: Final = frozenset({408, 409, 429})


class AsyncResponseRecorder:
    """Records one run: one response, or several where the program answers function calls.

    Use it as a context manager around the calls of ``create``: then a run that never starts, or that the
    program leaves, has its end too. The run ends with the first response that calls nothing.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        handler: RedisStreamResponseHandler,
        conversation_id: str,
        *,
        leases: LeaseKeeper,
        agent: str = AGENT,
        run: str | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        """Record into a conversation.

        Args:
            client: Resumes and cancels responses in the background.
            handler: The event loop's own.
            conversation_id: 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
            leases: Keep the run alive to its readers while the model is silent.
            agent: The agent's name, which the run's status tells.
            run: The run's id; a new one if it is left out.
            patience: How long Redis may stay away before ``record`` raises ``StreamUnavailable``.

        Raises:
            InvalidInput: an id can't be used.
        """
        self._client = client
        self._recording = RunRecording(
            handler, conversation_id, leases=leases, agent=agent, run=run, patience=patience
        )
        self._events = ResponseEvents()

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
        """End the run, if the API has not."""
        for entry in self._events.leave(exc_value):
            await self._recording.end(entry, hurry=True)

    async def record(
        self, stream: AsyncStream[ResponseStreamEvent]
    ) -> AsyncGenerator[ResponseStreamEvent, None]:
        """Record a response's events, and pass them on.

        Raises:
            APIConnectionError: the connection broke, and the response can't be resumed (or what else the SDK
                raises then).
            StreamUnavailable: Redis stayed away too long.
            WriterRefused: the run has ended elsewhere.
        """
        place = _Place()
        source: AsyncIterator[ResponseStreamEvent] | None = stream
        try:
            while source is not None:
                lost: Exception | None = None
                try:
                    event = await self._next(source, place)
                except _BROKEN as error:
                    event, lost = None, error
                if event is not None:
                    yield event
                    continue
                source = None if place.is_over else await self._resumed(place)
                if source is None and not place.is_over:
                    await self._end(connection_lost())
                    if lost is not None:
                        raise lost
        except RunStopped:
            await self._cancel(place)
            await self._end(terminal_entry(RunStatus.CANCELLED))
        except APIError as error:
            await self._end(failure_of(error))
            raise
        finally:
            for opened in (stream, source):
                if isinstance(opened, AsyncStream):
                    await opened.close()

    async def _next(
        self, source: AsyncIterator[ResponseStreamEvent], place: _Place
    ) -> ResponseStreamEvent | None:
        """The next event that was not seen before, recorded; ``None`` at the end."""
        while True:
            self._recording.raise_if_stopped()
            event = await self._recording.interruptible(_anext(source))
            if event is None or place.is_new(event):
                break
        if event is not None:
            await self._recording.put(self._events.entries(event.to_dict()))
        return event

    async def _resumed(self, place: _Place) -> AsyncIterator[ResponseStreamEvent] | None:
        """The response's further events; ``None`` if there is no way to them."""
        while place.response_id and (pause := place.pause()) is not None:
            await self._recording.interruptible(asyncio.sleep(pause))
            with contextlib.suppress(APIConnectionError):
                try:
                    return await self._recording.interruptible(
                        self._client.responses.retrieve(
                            place.response_id, stream=True, starting_after=place.sequence
                        )
                    )
                except APIStatusError as refused:
                    if _may_pass(refused):
                        continue
                response = await self._recording.interruptible(
                    self._client.responses.retrieve(place.response_id)
                )
                if response.status in ENDED:
                    return _once(snapshot_event(response, place.sequence + 1))
        return None

    async def _cancel(self, place: _Place) -> None:
        """Have a response in the background stop; any other stops with its connection."""
        if place.response_id is None:
            return
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT.total_seconds()):
                await self._client.responses.cancel(place.response_id)
        except (OpenAIError, TimeoutError) as error:
            _log.warning("response not cancelled: %s error=%s", self._recording, type(error).__name__)

    async def _end(self, terminal: NewEntry) -> None:
        await self._recording.put(self._events.end_with(terminal))


class ResponseRecorder:
    """``AsyncResponseRecorder`` for programs without an event loop.

    A cancel is noticed at the next event: nothing can interrupt a blocking read.
    """

    def __init__(
        self,
        client: OpenAI,
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
        self._client, self._streams = client, streams
        self._recording = RunRecording(
            streams.handler, conversation_id, leases=streams.leases, agent=agent, run=run, patience=patience
        )
        self._events = ResponseEvents()

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
        """End the run, if the API has not."""
        for entry in self._events.leave(exc_value):
            self._streams.call(self._recording.end(entry, hurry=True))

    def record(self, stream: Stream[ResponseStreamEvent]) -> Generator[ResponseStreamEvent, None, None]:
        """Record a response's events, and pass them on.

        Raises:
            APIConnectionError: the connection broke, and the response can't be resumed (or what else the SDK
                raises then).
            StreamUnavailable: Redis stayed away too long.
            WriterRefused: the run has ended elsewhere.
        """
        place = _Place()
        source: Iterator[ResponseStreamEvent] | None = stream
        try:
            while source is not None:
                lost: Exception | None = None
                try:
                    event = self._next(source, place)
                except _BROKEN as error:
                    event, lost = None, error
                if event is not None:
                    yield event
                    continue
                source = None if place.is_over else self._resumed(place)
                if source is None and not place.is_over:
                    self._end(connection_lost())
                    if lost is not None:
                        raise lost
        except RunStopped:
            self._cancel(place)
            self._end(terminal_entry(RunStatus.CANCELLED))
        except APIError as error:
            self._end(failure_of(error))
            raise
        finally:
            for opened in (stream, source):
                if isinstance(opened, Stream):
                    opened.close()

    def _next(self, source: Iterator[ResponseStreamEvent], place: _Place) -> ResponseStreamEvent | None:
        """The next event that was not seen before, recorded; ``None`` at the end."""
        while True:
            self._recording.raise_if_stopped()
            event = next(source, None)
            if event is None or place.is_new(event):
                break
        if event is not None:
            self._streams.call(self._recording.put(self._events.entries(event.to_dict())))
        return event

    def _resumed(self, place: _Place) -> Iterator[ResponseStreamEvent] | None:
        """The response's further events; ``None`` if there is no way to them."""
        while place.response_id and (pause := place.pause()) is not None:
            time.sleep(pause)
            self._recording.raise_if_stopped()
            with contextlib.suppress(APIConnectionError):
                try:
                    return self._client.responses.retrieve(
                        place.response_id, stream=True, starting_after=place.sequence
                    )
                except APIStatusError as refused:
                    if _may_pass(refused):
                        continue
                response = self._client.responses.retrieve(place.response_id)
                if response.status in ENDED:
                    return iter([snapshot_event(response, place.sequence + 1)])
        return None

    def _cancel(self, place: _Place) -> None:
        """Have a response in the background stop; any other stops with its connection."""
        if place.response_id is None:
            return
        try:
            self._client.responses.cancel(place.response_id, timeout=CANCEL_TIMEOUT.total_seconds())
        except OpenAIError as error:
            _log.warning("response not cancelled: %s error=%s", self._recording, type(error).__name__)

    def _end(self, terminal: NewEntry) -> None:
        self._streams.call(self._recording.put(self._events.end_with(terminal)))


class _Place:
    """How far a response was read, and whether it can be read on."""

    def __init__(self) -> None:
        #: Of a response that runs in the background.
        self.response_id: str | None = None
        #: The number of the last event.
        self.sequence = -1
        #: The response's last event has come.
        self.is_over = False
        self._pause = timedelta(0)
        self._progress_at = time.monotonic()

    def is_new(self, event: ResponseStreamEvent) -> bool:
        """Note an event; ``False`` if it was there before."""
        sequence = getattr(event, "sequence_number", None)
        if isinstance(sequence, int):
            if sequence <= self.sequence:
                return False
            self.sequence = sequence
        response = getattr(event, "response", None)
        if isinstance(response, Response) and response.background:
            self.response_id = response.id
        self.is_over = self.is_over or event.type in ENDS
        self._pause, self._progress_at = timedelta(0), time.monotonic()
        return True

    def pause(self) -> float | None:
        """Seconds to wait before the next try to read on; ``None``: no more tries."""
        if time.monotonic() - self._progress_at >= RESUME_PATIENCE.total_seconds():
            return None
        pause, self._pause = self._pause, min(max(self._pause * 2, RESUME_FIRST), RESUME_MOST)
        return pause.total_seconds()


def _may_pass(refused: APIStatusError) -> bool:
    """Whether another try may go better."""
    return refused.status_code >= _SERVER_ERROR or refused.status_code in _TRY_AGAIN


async def _anext(source: AsyncIterator[ResponseStreamEvent]) -> ResponseStreamEvent | None:
    return await anext(source, None)


async def _once(event: ResponseStreamEvent) -> AsyncGenerator[ResponseStreamEvent, None]:
    yield event
