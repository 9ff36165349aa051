"""Reads one stream to its end, over as many connections as it takes: each event once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import httpx

from clients.errors import (
    InvalidCursor,
    NotFound,
    RunFailed,
    RunInterrupted,
    StreamLost,
    UnexpectedAnswer,
)
from clients.events import STREAM_LOST, Done, Failed, Gap, Reset, StreamEvent
from clients.link import Link, path_part
from clients.patience import Retrying, Trouble
from clients.position import Position
from clients.refusals import judge, unexpected
from streaming.sse import ServerSentEvent, ServerSentEventDecoder

EVENT_STREAM: Final = "text/event-stream"
NOTHING_MORE: Final = 204
#: Characters of one event: far above any that the service writes, far below what would fill a memory.
MAX_EVENT: Final = 64 * 1024 * 1024
#: A stream that was there and is unknown now is asked for again: a service that has restarted with an empty
#: Redis makes its runs known again within seconds.
UNKNOWN_PATIENCE: Final = timedelta(seconds=20)
#: A read of all that is retained.
_FROM_THE_START: Final = ("0", "0-0")
_ONLY_NEW: Final = "$"


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What to read."""

    conversation_id: str
    cursor: str | None = None
    follow: bool = False
    all_events: bool = False
    run: str | None = None

    @property
    def reads_all(self) -> bool:
        """Whether the read goes on through the ends of runs to the last one."""
        return self.cursor in _FROM_THE_START and self.run is None and not self.follow

    @property
    def params(self) -> dict[str, str]:
        """The query, without a cursor."""
        params = {}
        if self.run is not None:
            params["run"] = self.run
        if self.follow:
            params["follow"] = "true"
        if self.all_events:
            params["events"] = "all"
        return params


class StreamReading:
    """One read. It belongs to the task that iterates over its events."""

    def __init__(self, link: Link, wanted: StreamRequest) -> None:
        self._link = link
        self._wanted = wanted
        self._path = f"/api/agent/stream/{path_part('conversation_id', wanted.conversation_id)}"
        self._position = Position(wanted.cursor)
        self._clock = asyncio.get_running_loop().time
        self._retrying = Retrying(link.patience, self._clock)
        #: Whether the service has known the stream.
        self._was_open = link.has_started(wanted.conversation_id, wanted.run)
        self._has_connected = False
        self._unknown_since: float | None = None
        self._is_over = False
        #: The failure of a run that may not be the last one to read.
        self._held: Failed | None = None

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """The events.

        Raises:
            RunFailed: the run that the read ends with has failed.
            RequestRefused, Unreachable: as their own docstrings say.
        """
        while not self._is_over:
            trouble = Trouble("the answer ended before the run did")
            try:
                async with aclosing(self._response()) as parts:
                    async for part in parts:
                        if isinstance(part, Trouble):
                            trouble = part
                        else:
                            yield part
                            # The caller's own time is not the service's silence.
                            self._retrying.progress()
            except httpx.RequestError as error:
                trouble = self._link.trouble_of(error)
            if not self._is_over:
                await self._link.pause(self._retrying.next(trouble, self._position.cursor))
        if self._held is not None:
            raise failure_of(self._held)

    async def _response(self) -> AsyncGenerator[StreamEvent | Trouble, None]:
        """The events of one response; and what was wrong with it, where that is known."""
        position, params = self._position, self._wanted.params
        headers = self._link.headers(self._wanted.conversation_id) | {"accept": EVENT_STREAM}
        if position.last_event_id is not None:
            headers["last-event-id"] = position.last_event_id
        elif position.cursor is not None:
            params["cursor"] = position.cursor
            if self._has_connected and position.cursor == _ONLY_NEW:
                yield Gap("the connection was cut before the first event: some may be missing", cursor=None)
        timeouts = self._link.timeouts(self._link.patience.stall_after)
        async with self._link.http.stream(
            "GET", self._path, params=params, headers=headers, timeout=timeouts
        ) as response:
            if response.status_code == NOTHING_MORE:
                self._is_over = True
            elif response.status_code != httpx.codes.OK:
                trouble = await self._refused(response)
                if isinstance(trouble, Reset):
                    yield trouble
                    trouble = Trouble("the service no longer knows the cursor")
                yield trouble
            elif not response.headers.get("content-type", "").startswith(EVENT_STREAM):
                if not self._was_open:
                    raise unexpected(response, EVENT_STREAM)
                yield Trouble("something else than the service answered")
            else:
                self._was_open = self._has_connected = True
                self._unknown_since = None
                async with aclosing(self._body(response)) as parts:
                    async for part in parts:
                        yield part

    async def _refused(self, response: httpx.Response) -> Trouble | Reset:
        position = self._position
        try:
            return await judge(response, position.cursor)
        except InvalidCursor:
            if position.last_event_id is None:
                raise
            # The service gave it out, and knows it no longer: its stream was written anew.
            position.forget()
            return Reset("the service no longer knows the cursor: all of it comes again", cursor=None)
        except NotFound:
            now = self._clock()
            self._unknown_since = self._unknown_since or now
            patience = min(UNKNOWN_PATIENCE, self._link.patience.give_up_after / 2)
            if not self._was_open or now - self._unknown_since > patience.total_seconds():
                raise
            return Trouble("the conversation is unknown at the moment")
        except UnexpectedAnswer:
            if not self._was_open:
                raise
            return Trouble("something else than the service answered")

    async def _body(self, response: httpx.Response) -> AsyncGenerator[StreamEvent | Trouble, None]:
        decoder = ServerSentEventDecoder(self._position.last_event_id or "")
        heartbeats = 0
        async for piece in response.aiter_bytes():
            for event in decoder.feed(piece):
                for shown in self._take(event):
                    yield shown
                if self._is_over:
                    return
            if decoder.comments > heartbeats:
                heartbeats = decoder.comments
                self._retrying.progress()
            self._look_at(decoder, response)
        # It ended in good order: the service asks to come back, and not before this.
        at_least = timedelta(milliseconds=decoder.retry or 0)
        yield Trouble("the answer ended before the run did", at_least)

    def _look_at(self, decoder: ServerSentEventDecoder, response: httpx.Response) -> None:
        if decoder.retry is not None:
            self._retrying.reconnection_time = timedelta(milliseconds=decoder.retry)
        if decoder.pending > MAX_EVENT:
            raise unexpected(response, f"events of at most {MAX_EVENT} characters")
        # Bytes alone are no progress: they may be those of an event that never ends.
        self._retrying.check("no event was ever complete", self._position.cursor)

    def _take(self, event: ServerSentEvent) -> list[StreamEvent]:
        """What the caller is given for an event.

        Raises:
            RunFailed: the run that the read ends with has failed.
        """
        taken = self._position.take(event)
        if taken is None:
            return []
        self._retrying.progress()
        held, self._held = self._held, None
        given: list[StreamEvent] = [] if held is None else [held]
        goes_on = self._wanted.follow or self._wanted.reads_all
        match taken:
            case Failed(code=code) if self._wanted.reads_all and code != STREAM_LOST:
                # Whether it is the last run's is known when nothing more comes.
                self._held = taken
                return given
            case Failed(code=code) if not self._wanted.follow or code == STREAM_LOST:
                raise failure_of(taken)
            case Done() if not goes_on:
                self._is_over = True
        return [*given, taken]


def failure_of(event: Failed) -> RunFailed:
    """The error of a run that failed."""
    kinds = {"interrupted": RunInterrupted, STREAM_LOST: StreamLost}
    return kinds.get(event.code, RunFailed)(event.message, code=event.code, cursor=event.cursor)
