"""A reader as a browser is one: it comes back with the id of the last event, until there is nothing more.

Its connections are cut at random. It checks what a reader is promised: each event once, in order, and an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httpx

from soak.counts import Counts
from streaming.identifiers import parse_entry_id
from streaming.sse import ServerSentEvent, ServerSentEventDecoder

#: This kind of reader, in the result.
RAW: Final = "raw reader"
#: A browser's pause before it comes back is a second; this one is in more of a hurry.
COME_BACK_SECONDS: Final = 0.2
#: A conversation that stays unknown for this long, in seconds, is lost.
UNKNOWN_LIMIT_SECONDS: Final = 20.0
#: What a slow reader takes at a time, and its pause after it.
SIP_BYTES: Final = 2_000
SIP_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Habits:
    """How a reader reads."""

    #: Its connections are cut after at most so many bytes; 0: never.
    cut_after: int = 3_000
    is_slow: bool = False


@dataclass(slots=True)
class Reading:
    """What a reader has in the end."""

    #: What kind of reader it is, in the result.
    kind: str = RAW
    text: str = ""
    #: ``done``, or the code of an error.
    end: str | None = None
    connections: int = 0
    _seen: set[str] = field(default_factory=set)
    cursor: str | None = None
    _last: str | None = None

    def take(self, event: ServerSentEvent, counts: Counts) -> None:
        """Show an event; count what is wrong with it."""
        counts.events += 1
        if event.event == "gap":
            counts.gaps[self.kind] += 1
        elif event.event == "cancelled":
            # No entry; the run's done follows.
            return
        elif event.event == "reset" and event.id in ("", self.cursor):
            # No entry: what follows may have been here before.
            counts.resets[self.kind] += 1
            self.text, self.end, self._last = "", None, None
            self._seen.clear()
        elif event.event == "error":
            # That a stream is lost is no entry either.
            self.end = str(json.loads(event.data)["code"])
            self.cursor = event.id
        else:
            self._take_entry(event, counts)

    def _take_entry(self, event: ServerSentEvent, counts: Counts) -> None:
        if event.id in self._seen:
            counts.defect("doubled", f"event {event.id}")
        elif self._last is not None and parse_entry_id(event.id) < parse_entry_id(self._last):
            counts.defect("reordered", f"event {event.id} after {self._last}")
        self._seen.add(event.id)
        self.cursor = self._last = event.id
        if event.event == "message":
            self.text += event.data
        elif event.event == "reset":
            counts.resets[self.kind] += 1
            self.text, self.end = "", None
        elif event.event == "done":
            self.end = "done"


class RunReader(Protocol):
    """Whatever reads one run."""

    reading: Reading

    async def read(self) -> Reading:
        """Read to the end of the run."""


class Reader:
    """Reads one run over any number of connections."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        run: dict[str, Any],
        habits: Habits,
        chance: random.Random,
        counts: Counts,
    ) -> None:
        self._http = http
        self._run = run
        self._habits = habits
        self._chance = chance
        self._counts = counts
        self._unknown_since: float | None = None
        #: Bytes after which the next connection is cut at the latest.
        self._patience = habits.cut_after
        self.reading = Reading()

    async def read(self) -> Reading:
        """Read to the end of the run; and once more, to hear that nothing follows."""
        self._counts.readers[RAW] += 1
        while not await self._connect():
            self._counts.reconnects[RAW] += 1
            await asyncio.sleep(COME_BACK_SECONDS * self._chance.random())
        return self.reading

    async def _connect(self) -> bool:
        """One connection; whether it was the last one."""
        headers = {"accept": "text/event-stream"}
        if self.reading.cursor is not None:
            headers["last-event-id"] = self.reading.cursor
        path = f"/api/agent/stream/{self._run['conversation_id']}"
        params = {"run": self._run["correlation_id"]}
        self.reading.connections += 1
        try:
            async with self._http.stream("GET", path, params=params, headers=headers) as response:
                if response.status_code == 200:
                    self._unknown_since = None
                    await self._take_all(response)
                return self._is_over(response.status_code)
        except (httpx.TransportError, httpx.StreamError):
            # The service is away, or has gone in mid-answer.
            return False

    def _is_over(self, status: int) -> bool:
        if status == 204:
            return True
        if status == 404:
            now = time.monotonic()
            self._unknown_since = self._unknown_since or now
            if now - self._unknown_since > UNKNOWN_LIMIT_SECONDS:
                self._counts.defect("lost", f"run {self._run['correlation_id']} is unknown")
                return True
        elif status not in (200, 503):
            self._counts.defect("wrong end", f"status {status}")
            return True
        # Its end was heard: a browser would ask once more and be told 204. Most readers here don't.
        return self.reading.end is not None and self._chance.random() < 0.8

    @contextlib.contextmanager
    def _growing_patience(self) -> Iterator[None]:
        """A connection that brought nothing is followed by a longer one: an event may be larger than it."""
        before = self.reading.cursor
        yield
        self._patience = self._habits.cut_after if self.reading.cursor != before else self._patience * 2

    async def _take_all(self, response: httpx.Response) -> None:
        decoder, connected_at = ServerSentEventDecoder(), time.monotonic()
        left = self._chance.randint(1, self._patience) if self._habits.cut_after else None
        size = SIP_BYTES if self._habits.is_slow else None
        with contextlib.suppress(httpx.TransportError), self._growing_patience():
            async for piece in response.aiter_bytes(size):
                for event in decoder.feed(piece if left is None else piece[:left]):
                    self.reading.take(event, self._counts)
                    if time.monotonic() - connected_at > 1 and event.event == "message":
                        self._counts.latency(time.time() * 1000 - parse_entry_id(event.id).milliseconds)
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        return
                if self._habits.is_slow:
                    await asyncio.sleep(SIP_SECONDS)
