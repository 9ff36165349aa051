"""Server-sent events, written and read: a pure codec in the words of the standard.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (sections 9.2.5 and 9.2.6).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: The standard ends a line at CR LF, LF or CR, and at nothing else (not at U+2028, say).
_LINE_END: Final = re.compile(r"\r\n|\n|\r")

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"

_MESSAGE: Final = b"id: %b\nevent: message\ndata: %b\n\n"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event as an ``EventSource`` dispatches it."""

    data: str
    event: str = "message"
    #: The last event id in force: the cursor.
    id: str = ""


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

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._data: list[str] = []
        self._event = ""
        self.last_event_id = ""
        #: What the server asked for, in milliseconds.
        self.retry: int | None = None

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, give the events they complete. An unfinished last event is never given."""
        self._text += self._bytes.decode(piece)
        # A CR at the very end may be half of a CR LF.
        usable = len(self._text) - self._text.endswith("\r")
        events: list[ServerSentEvent] = []
        start = 0
        for end in _LINE_END.finditer(self._text, 0, usable):
            event = self._line(self._text[start : end.start()])
            start = end.end()
            if event is not None:
                events.append(event)
        self._text = self._text[start:]
        return events

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        self._field(field, value.removeprefix(" "))
        return None

    def _field(self, field: str, value: str) -> None:
        match field:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_event_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = int(value)
            case _:
                return

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        if not data:
            return None
        return ServerSentEvent(data="\n".join(data), event=event or "message", id=self.last_event_id)
