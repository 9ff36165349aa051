"""Server-sent events, written and read: a pure codec in the words of the standard.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (sections 9.2.5 and 9.2.6).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

#: The standard ends a line at CR LF, LF or CR, and at nothing else (not at U+2028, say).
_LINE_END: Final = re.compile(r"\r\n|\n|\r")

#: ASCII digits alone; so many that no clock needs more, since Python refuses to read thousands.
_MILLISECONDS: Final = re.compile(r"[0-9]{1,15}")

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"

_MESSAGE: Final = b"id: %b\nevent: message\ndata: %b\n\n"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event as an ``EventSource`` dispatches it."""

    data: str
    event: str = "message"
    #: The last event id in force: the cursor.
    id: str = ""
    #: Whether the event brought that id itself; else it is an earlier event's.
    has_own_id: bool = field(default=False, compare=False)


def encode_event(event: str, data: str, *, entry_id: str | None = None) -> bytes:
    """Write one event: a ``data`` line for each line of the data, so that no text can forge an event.

    The format has no way to carry CR: every line end arrives as LF.
    """
    lines = f"event: {event}\n" if entry_id is None else f"id: {entry_id}\nevent: {event}\n"
    if "\n" in data or "\r" in data:
        lines += "".join([f"data: {line}\n" for line in _LINE_END.split(data)])
    else:
        lines += f"data: {data}\n"
    return f"{lines}\n".encode("utf-8", "replace")


def encode_messages(messages: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write ``message`` events, of ids and data in bytes: as ``encode_event`` would, but faster."""
    encoded = b"".join(
        [
            _MESSAGE % (entry_id, data)
            if b"\n" not in data and b"\r" not in data
            else encode_event("message", data.decode("utf-8", "replace"), entry_id=entry_id.decode())
            for entry_id, data in messages
        ]
    )
    # Each event begins and ends with ASCII: what is no UTF-8 in one leaves the others as they are.
    return encoded if encoded.isascii() else encoded.decode("utf-8", "replace").encode()


def encode_retry(milliseconds: int) -> bytes:
    """Set how long a client waits before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def encode_comment(text: str = "") -> bytes:
    """Write a line that clients ignore: a heartbeat."""
    return f": {text}\n\n".encode()


class ServerSentEventDecoder:
    """Reads an event stream piece by piece, however it was cut."""

    def __init__(self, last_event_id: str = "") -> None:
        """Begin a response; ``last_event_id`` is the one in force from the responses before it."""
        self._bytes = codecs.getincrementaldecoder("utf-8-sig")("replace")
        #: The unfinished last line, in the pieces it came in: a long one is put together once.
        self._line_parts: list[str] = []
        self._after_cr = False
        self._data: list[str] = []
        self._event = ""
        self._id = last_event_id
        self._has_own_id = False
        #: Of the last event that was complete; only an empty line makes an ``id`` count.
        self.last_event_id = last_event_id
        #: What the server asked for, in milliseconds.
        self.retry: int | None = None
        #: Comments so far: heartbeats.
        self.comments = 0
        #: Characters since the last empty line: of an event that is not complete. Bound it where the server
        #: is not trusted.
        self.pending = 0

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, give the events they complete. An unfinished last event is never given."""
        text = self._bytes.decode(piece)
        if self._after_cr and text:
            # A CR ends a line at once; the LF of a CR LF belongs to it.
            text = text.removeprefix("\n")
            self._after_cr = False
        events: list[ServerSentEvent] = []
        start = complete = 0
        for end in _LINE_END.finditer(text):
            line = text[start : end.start()]
            start = end.end()
            if self._line_parts:
                line = "".join((*self._line_parts, line))
                self._line_parts.clear()
            if line:
                self._read_line(line)
                continue
            complete, self.pending = start, 0
            event = self._dispatch()
            if event is not None:
                events.append(event)
        self._after_cr = text.endswith("\r") if text else self._after_cr
        if start < len(text):
            self._line_parts.append(text[start:])
        self.pending += len(text) - complete
        return events

    def _read_line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id, self._has_own_id = value, True
            case "retry" if _MILLISECONDS.fullmatch(value):
                self.retry = int(value)
            case "":
                self.comments += 1
            case _:
                return

    def _dispatch(self) -> ServerSentEvent | None:
        data, event, has_own_id = self._data, self._event, self._has_own_id
        self._data, self._event, self._has_own_id = [], "", False
        self.last_event_id = self._id
        if not data:
            return None
        return ServerSentEvent("\n".join(data), event or "message", self._id, has_own_id)
