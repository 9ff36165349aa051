"""Turns an open read into a response body: server-sent events or plain text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from streaming.entries import GAP, READING_EVENTS, RESET, RunStatus, StreamChunk, to_json
from streaming.http.limits import RECONNECT_MS, TimeLimit
from streaming.http.messages import DirectLine
from streaming.identifiers import EntryId
from streaming.reading.open_stream import OpenStream
from streaming.reading.reader import HEARTBEAT
from streaming.reading.told import LOST_CODE
from streaming.sse import encode_comment, encode_event, encode_retry
from streaming.telemetry import NO_SPAN, Span
from streaming.text_blocks import Part, TextBlock, chunks_of

DONE: Final = "[DONE]"
#: Ends plain text that ends early.
CUT_NOTE: Final = b"\n[The connection ended before the answer did: read on from your cursor.]\n"
#: Names the run that the events after it belong to.
RUN_EVENT: Final = "run"
#: Events of the protocol that are no typed entries.
_OWN_EVENTS: Final = ("cancelled", "done", "error", "gap", "message", RUN_EVENT)
#: Before the ``done`` of a cancelled run. Without an id: who is cut between the two gets both again.
_CANCELLED: Final = encode_event("cancelled", to_json({"reason": "The run was cancelled."}))
_PLAIN_NOTES: Final = {
    RESET: "\n[The answer starts again.]\n",
    GAP: "\n[Part of the answer is no longer retained.]\n",
}


async def as_server_sent_events(
    opened: OpenStream,
    *,
    all_events: bool,
    limit: TimeLimit | None = None,
    reconnect_ms: Callable[[], int] = lambda: RECONNECT_MS,
    span: Span = NO_SPAN,
    direct: DirectLine | None = None,
) -> AsyncGenerator[bytes, None]:
    """The read as server-sent events; heartbeats while it is silent.

    Args:
        opened: The read.
        all_events: Also entries that are not text.
        limit: How long it may last.
        reconnect_ms: Asked, when its client is sent away, when it is to come back.
        span: Ended with it.
        direct: What its host can write to, while it waits.
    """
    loop = asyncio.get_running_loop()
    events = _Events(opened, limit, _Note(opened, span), direct, all_events=all_events)
    try:
        yield encode_retry(RECONNECT_MS)
        async with aclosing(opened) as batches:
            async for batch in batches:
                if piece := events.of(batch, loop.time()):
                    yield piece
                    events.sent(batch, loop.time())
                if events.is_limit_reached(batch, loop.time()):
                    opened.cut_short = True
                    break
                # A page may be half a megabyte, and the next entry long in coming, for thousands of readers.
                del batch, piece
        if opened.cut_short:
            # The client is to come back: this is no end of the run, so it gets no done.
            yield encode_retry(reconnect_ms())
        events.note.outcome = _outcome(opened)
    finally:
        # They know each other, and are not to be left to the garbage collector.
        opened.give = None
        events.note.end()


class _Events:
    """What of a read goes to one client as server-sent events, and when."""

    def __init__(
        self,
        opened: OpenStream,
        limit: TimeLimit | None,
        note: _Note,
        direct: DirectLine | None,
        *,
        all_events: bool,
    ) -> None:
        self.note = note
        self._opened = opened
        self._limit = limit
        self._direct = direct
        self._all_events = all_events
        self._runs = _RunNames() if all_events and opened.covers_all_runs else None
        self._sent_at = asyncio.get_running_loop().time()
        if direct is not None and self._runs is None:
            opened.give = self._give

    def of(self, batch: Sequence[Part], now: float) -> bytes:
        """What a batch is to the client; maybe nothing."""
        if self._runs is None:
            body = b"".join([part.encoded or _event(part, self._all_events) for part in batch])
        else:
            body = b"".join([self._runs.before(part) + _event(part, self._all_events) for part in batch])
        # Typed entries that this client did not ask for are no sign of life to it.
        if not body and (not batch or now - self._sent_at >= HEARTBEAT.total_seconds()):
            return encode_comment("heartbeat")
        return body

    def sent(self, batch: Sequence[Part], now: float) -> None:
        """The server has taken it."""
        self._sent_at = now
        if batch:
            self.note.sent(self._opened.cursor)

    def is_limit_reached(self, batch: Sequence[Part], now: float) -> bool:
        return self._limit is not None and self._limit.is_reached(batch, now)

    def _give(self, block: TextBlock, now: float) -> bool:
        """Send a block past the iteration, which waits. ``False``: it has to come by it."""
        write = self._direct.write if self._direct is not None else None
        if write is None or self.is_limit_reached((block,), now) or not write(block.encoded):
            return False
        self._sent_at = now
        self.note.sent(block.last)
        return True


class _Note:
    """What telemetry is told of one response."""

    def __init__(self, opened: OpenStream, span: Span) -> None:
        self._opened = opened
        self._delivered = opened.telemetry.piece_delivered
        self._span = span
        self._pieces = 0
        self.outcome = "left"

    def sent(self, last: EntryId) -> None:
        """The server has taken a piece up to this entry: the client's socket has room for it."""
        self._pieces += 1
        # What was stored before its reader came is as old as it is.
        if self._opened.is_live:
            self._delivered(last.milliseconds)

    def end(self) -> None:
        self._span.end(self.outcome, {"pieces": self._pieces})


def _outcome(opened: OpenStream) -> str:
    return "cut_short" if opened.cut_short else "ended"


class _RunNames:
    """Tells a reader of many runs which of them it is reading. A run without an id is ``null``."""

    def __init__(self) -> None:
        self._told: str | None = ""

    def before(self, part: Part) -> bytes:
        """What has to be said before a part of a stream; mostly nothing."""
        if part.run == self._told:
            return b""
        if isinstance(part, StreamChunk) and (part.type == GAP or part.code == LOST_CODE):
            # Words of the reader, about no run in particular.
            return b""
        self._told = part.run
        return encode_event(RUN_EVENT, to_json({"run": part.run}))


def _event(part: Part, all_events: bool) -> bytes:  # noqa: FBT001 - called for each chunk and reader
    if isinstance(part, TextBlock) or part.encoded is not None:
        return part.encoded or b""
    encoded = _encode(part, all_events=all_events)
    if part.type is None:
        object.__setattr__(part, "encoded", encoded)
    return encoded


def _encode(chunk: StreamChunk, *, all_events: bool) -> bytes:
    if chunk.error is not None:
        error = to_json({"code": chunk.code, "message": chunk.error})
        return encode_event("error", error, entry_id=chunk.entry_id)
    if chunk.is_done:
        done = encode_event("done", DONE, entry_id=chunk.entry_id)
        return _CANCELLED + done if chunk.status is RunStatus.CANCELLED else done
    if chunk.type is None:
        return encode_event("message", chunk.text or "", entry_id=chunk.entry_id)
    if chunk.type == GAP or not chunk.is_entry:
        # The client's cursor stays where it is.
        return encode_event(chunk.type, to_json(chunk.data))
    if all_events or chunk.type in READING_EVENTS:
        return encode_event(_event_name(chunk.type), to_json(chunk.data), entry_id=chunk.entry_id)
    return b""


def _event_name(kind: str) -> str:
    """An entry's type can forge neither a line nor what other events mean."""
    name = "".join(character for character in kind if character.isalnum() or character in "_-.") or "event"
    return f"x-{name}" if name in _OWN_EVENTS else name


async def as_plain_text(
    opened: OpenStream, *, resumed: bool, limit: TimeLimit | None = None, span: Span = NO_SPAN
) -> AsyncGenerator[bytes, None]:
    """The bare text as it comes.

    Args:
        opened: The read.
        resumed: Whether its client has a part of the answer already.
        limit: How long it may last.
        span: Ended with it.
    """
    loop, note = asyncio.get_running_loop(), _Note(opened, span)
    plain = _PlainText(has_part=resumed)
    try:
        async with aclosing(opened) as batches:
            async for batch in batches:
                if text := "".join(plain.render(chunk) for chunk in chunks_of(batch)):
                    yield text.encode("utf-8", "replace")
                    note.sent(opened.cursor)
                if limit is not None and limit.is_reached(batch, loop.time()):
                    opened.cut_short = True
                    break
                # As above.
                del batch, text
        if opened.cut_short:
            yield CUT_NOTE
        note.outcome = _outcome(opened)
    finally:
        note.end()


class _PlainText:
    """Knows whether its reader has something of the run, and so something to discard."""

    def __init__(self, *, has_part: bool) -> None:
        self._has_part = has_part

    def render(self, chunk: StreamChunk) -> str:
        if chunk.is_terminal:
            self._has_part = False
            return f"\n[Error: {chunk.error}]\n" if chunk.error is not None else ""
        if chunk.type is None:
            self._has_part = True
            return chunk.text or ""
        if chunk.type == RESET and not self._has_part:
            return ""
        return _PLAIN_NOTES.get(chunk.type, "")
