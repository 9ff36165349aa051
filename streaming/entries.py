"""Entries of the stream: what is stored, and what a reader is given.

The field names and values are the wire contract (docs/protocol.md, section 2).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import msgspec

from streaming.identifiers import EntryId, parse_entry_id


class RunStatus(enum.StrEnum):
    """Where a run stands. The last four end it."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def is_terminal(self) -> bool:
        """Whether a run of this status takes no more entries."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


#: Types of entries that are not text.
RESET: Final = "reset"
GAP: Final = "gap"
REASONING: Final = "reasoning"
TOOL_CALL: Final = "tool_call"
TOOL_RESULT: Final = "tool_result"
USAGE: Final = "usage"
#: Types that tell a reader how to read on; given to every reader, asked for or not.
READING_EVENTS: Final = frozenset({RESET, GAP})


#: Digits of the longest number in an entry: those of 64 bits.
NUMBER_DIGITS: Final = 20
#: An entry that has none of these fields is a piece of text.
_OTHER_THAN_TEXT: Final = frozenset({"type", "done", "error"})


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """One entry as a reader sees it.

    ``entry_id``, ``text``, ``is_done`` and ``error`` are the published interface. ``entry_id`` is the
    cursor to resume strictly after this chunk.
    """

    entry_id: str
    text: str | None = None
    is_done: bool = False
    error: str | None = None
    #: ``None`` for text and terminals, else ``reset``, ``gap``, ``tool_call``, ``reasoning`` …
    type: str | None = None
    #: The typed entry's own content.
    data: Any = None
    run: str | None = None
    attempt: int = 1
    sequence: int | None = None
    #: When the chunk was produced, Unix time in milliseconds.
    timestamp: int | None = None
    code: str | None = None
    status: RunStatus | None = None
    #: ``False``: told by the reader itself; it is not stored, and doesn't move the cursor.
    is_entry: bool = True
    #: What it is to every client that speaks server-sent events, once that is known: its readers share it.
    encoded: bytes | None = field(default=None, init=False, compare=False, repr=False)
    _id: EntryId | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def id(self) -> EntryId:
        """The entry id as one that can be compared."""
        if self._id is None:
            # Each of a stream's readers asks for it.
            object.__setattr__(self, "_id", parse_entry_id(self.entry_id))
        return self._id  # type: ignore[return-value]  # set above

    @property
    def is_terminal(self) -> bool:
        """Whether the run ends here."""
        return self.is_done or self.error is not None


class NewEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry on its way into the stream. The store adds the sequence, the run and the attempt.

    A run keeps all of its entries to its end, so the garbage collector is not to look at them.
    """

    timestamp: int
    text: str = ""
    type: str | None = None
    data: Any = None
    status: RunStatus | None = None
    error: str | None = None
    code: str | None = None

    @property
    def size(self) -> int:
        """Roughly how many bytes the entry takes, for the bounds of buffers."""
        return len(self.text) + (len(str(self.data)) if self.data is not None else 0)

    def fields(self) -> list[str]:
        """Field, value, field, value …, without those that the store adds."""
        fields = ["text", self.text, "timestamp", str(self.timestamp)]
        if self.type is not None:
            fields += ["type", self.type, "data", to_json(self.data)]
        if self.status is not None:
            fields += _terminal_fields(self.status, self.error, self.code)
        return fields


def _terminal_fields(status: RunStatus, error: str | None, code: str | None) -> list[str]:
    fields = ["status", status.value]
    if status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        fields += ["done", "true"]
    else:
        fields += ["error", error or "The run did not finish.", "code", code or status.value]
    return fields


def to_json(value: Any) -> str:
    """Compact JSON that stays readable in ``XRANGE``."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def decode_entry(entry_id: str | bytes, fields: Mapping[Any, Any] | Sequence[Any]) -> StreamChunk:
    """Read a stored entry, from a client with ``decode_responses`` on or off.

    Fields of other writers are taken as leniently as can be: a missing or odd ``sequence`` is ``None``.
    """
    pairs = fields.items() if isinstance(fields, Mapping) else zip(fields[::2], fields[1::2], strict=False)
    values = {as_text(name): as_text(value) for name, value in pairs}
    return chunk_of(as_text(entry_id), values)


def flat_fields(fields: Mapping[Any, Any] | Sequence[Any]) -> Sequence[Any]:
    """An entry's fields and values in turns, also where the driver has made a mapping of them."""
    return list(chain.from_iterable(fields.items())) if isinstance(fields, Mapping) else fields


def chunk_of(entry_id: str, values: Mapping[str, str]) -> StreamChunk:
    """Read an entry whose fields are text."""
    if not _OTHER_THAN_TEXT & values.keys():
        return StreamChunk(
            entry_id=entry_id,
            text=values.get("text"),
            run=values.get("run"),
            attempt=_number(values.get("attempt")) or 1,
            sequence=_number(values.get("sequence")),
            timestamp=_number(values.get("timestamp")),
        )
    kind = values.get("type")
    error = values.get("error") or None
    is_done = values.get("done") == "true" and error is None
    terminal = is_done or error is not None
    return StreamChunk(
        entry_id=entry_id,
        text=None if terminal or kind is not None else values.get("text"),
        is_done=is_done,
        error=error,
        type=kind,
        data=_from_json(values.get("data")) if kind is not None else None,
        run=values.get("run"),
        attempt=_number(values.get("attempt")) or 1,
        sequence=_number(values.get("sequence")),
        timestamp=_number(values.get("timestamp")),
        code=(values.get("code") or RunStatus.FAILED.value) if error is not None else None,
        status=_status(values.get("status"), is_done=is_done, error=error),
    )


def _status(value: str | None, *, is_done: bool, error: str | None) -> RunStatus | None:
    if not is_done and error is None:
        return None
    try:
        return RunStatus(value or "")
    except ValueError:
        return RunStatus.COMPLETED if is_done else RunStatus.FAILED


def as_text(value: Any) -> str:
    """A value that Redis gave, which the driver may have decoded."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: str | None) -> int | None:
    is_number = value is not None and len(value) <= NUMBER_DIGITS and value.isascii() and value.isdigit()
    return int(value) if is_number and value is not None else None


def _from_json(value: str | None) -> Any:
    try:
        return json.loads(value) if value else None
    except (ValueError, RecursionError):
        # Anybody may have written it.
        return value
