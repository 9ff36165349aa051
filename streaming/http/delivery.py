"""Turns an open read into a response body: server-sent events or plain text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from streaming.entries import GAP, READING_EVENTS, RESET, RunStatus, StreamChunk, to_json
from streaming.http.limits import RECONNECT_MS, TimeLimit
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
) -> AsyncGenerator[bytes, None]:
    """The read as server-sent events; heartbeats while it is silent.

    Args:
        opened: The read.
        all_events: Also entries that are not text.
        limit: How long it may last.
        reconnect_ms: Asked, when its client is sent away, when it is to come back.
        span: Ended with it.
    """
    loop, note = asyncio.get_running_loop(), _Note(opened, span)
    runs = _RunNames() if all_events and opened.covers_all_runs else None
    try:
        yield encode_retry(RECONNECT_MS)
        sent_at = loop.time()
        async with aclosing(opened) as batches:
            async for batch in batches:
                if runs is None:
                    body = b"".join([part.encoded or _event(part, all_events) for part in batch])
                else:
                    body = b"".join([runs.before(part) + _event(part, all_events) for part in batch])
                now = loop.time()
                # Typed entries that this client did not ask for are no sign of life to it.
                if not body and (not batch or now - sent_at >= HEARTBEAT.total_seconds()):
                    body = encode_comment("heartbeat")
                if body:
                    yield body
                    sent_at = now
                    if batch:
                        note.sent()
                if limit is not None and limit.is_reached(batch, now):
                    opened.cut_short = True
                    break
        if opened.cut_short:
            # The client is to come back: this is no end of the run, so it gets no done.
            yield encode_retry(reconnect_ms())
        note.outcome = _outcome(opened)
    finally:
        note.end()


class _Note:
    """What telemetry is told of one response."""

    def __init__(self, opened: OpenStream, span: Span) -> None:
        self._opened = opened
        self._delivered = opened.telemetry.piece_delivered
        self._span = span
        self._pieces = 0
        self.outcome = "left"

    def sent(self) -> None:
        """The server has taken a piece: the client's socket has room for it."""
        self._pieces += 1
        # What was stored before its reader came is as old as it is.
        if self._opened.is_live:
            self._delivered(self._opened.cursor.milliseconds)

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
                    note.sent()
                if limit is not None and limit.is_reached(batch, loop.time()):
                    opened.cut_short = True
                    break
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
