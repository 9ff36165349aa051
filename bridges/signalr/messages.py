"""Entries of a run → what its clients are told. Pure; the names on the wire are in docs/signalr.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from streaming.entries import StreamChunk, to_json
from streaming.reading.told import LOST_CODE

#: What clients listen to. The first two are the published sample's.
MESSAGE: Final = "agentMessage"
DONE: Final = "agentDone"
ERROR: Final = "agentError"
EVENT: Final = "agentEvent"

#: Characters of text or JSON in one push. The service takes 1 MB, and JSON writes six bytes for the worst of
#: characters. Text that waits goes out together up to here; an entry that is longer by itself is not pushed.
PUSH_LIMIT: Final = 100_000


@dataclass(frozen=True, slots=True)
class Push:
    """One call on the clients."""

    target: str
    argument: dict[str, Any]


@dataclass(slots=True)
class PushedRun:
    """Turns a run's entries into pushes, each of which names the entry before it.

    So a client knows whether it has missed something: it has if it stands at another entry than that.
    Entries that are not pushed, and places where the reader says that something is missing, break this
    chain, and the client reads the stream.
    """

    conversation_id: str
    run: str
    _previous: str = ""
    _texts: list[StreamChunk] = field(default_factory=list)
    _size: int = 0

    def pushes(self, batch: Iterable[StreamChunk]) -> Iterator[Push]:
        """What to tell of a batch, in order. Nothing is held back for the next one."""
        for chunk in batch:
            if chunk.type is None and not chunk.is_terminal:
                yield from self._text(chunk)
                continue
            yield from self._flush()
            yield from self._other(chunk)
        yield from self._flush()

    def _text(self, chunk: StreamChunk) -> Iterator[Push]:
        size = len(chunk.text or "")
        if self._size + size > PUSH_LIMIT:
            yield from self._flush()
        if size > PUSH_LIMIT:
            self._previous = chunk.entry_id
            return
        self._texts.append(chunk)
        self._size += size

    def _flush(self) -> Iterator[Push]:
        if self._texts:
            text = "".join(chunk.text or "" for chunk in self._texts)
            last = self._texts[-1]
            self._texts, self._size = [], 0
            yield self._push(MESSAGE, last, {"text": text})

    def _other(self, chunk: StreamChunk) -> Iterator[Push]:
        if not chunk.is_entry:
            # What the reader itself says is said to each reader anew.
            self._previous = ""
        elif chunk.error is not None:
            # A stream that is gone may still be rebuilt for whoever reads it over HTTP.
            if chunk.code != LOST_CODE:
                told = {"error": chunk.error, "code": chunk.code, "status": chunk.status}
                yield self._push(ERROR, chunk, told)
        elif chunk.is_done:
            yield self._push(DONE, chunk, {"status": chunk.status})
        elif len(to_json(chunk.data)) > PUSH_LIMIT:
            self._previous = chunk.entry_id
        else:
            yield self._push(EVENT, chunk, {"type": chunk.type, "data": chunk.data})

    def _push(self, target: str, last: StreamChunk, content: dict[str, Any]) -> Push:
        argument = {
            "conversationId": self.conversation_id,
            "correlationId": self.run,
            **content,
            "entryId": last.entry_id,
            "previousEntryId": self._previous,
            "sequence": last.sequence,
            "attempt": last.attempt,
        }
        self._previous = last.entry_id
        return Push(target, argument)
