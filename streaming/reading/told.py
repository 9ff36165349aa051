"""What a read tells of its own: no entries, so they don't move the cursor."""

from __future__ import annotations

from typing import Final

from streaming.entries import GAP, RESET, StreamChunk
from streaming.identifiers import EntryId

LOST_MESSAGE: Final = "The stream was deleted or has expired before the run ended."
LOST_CODE: Final = "stream_lost"


def gap(cursor: EntryId, reason: str) -> StreamChunk:
    """Entries are missing here."""
    return StreamChunk(entry_id=str(cursor), type=GAP, data={"reason": reason}, is_entry=False)


def reset(cursor: EntryId, run: str | None, reason: str) -> StreamChunk:
    """What was given of this run is to be discarded."""
    return StreamChunk(entry_id=str(cursor), type=RESET, data={"reason": reason}, run=run, is_entry=False)


def lost(cursor: EntryId) -> StreamChunk:
    """The stream is lost for good. Nothing can be stored any more, so the read itself says so."""
    return StreamChunk(entry_id=str(cursor), error=LOST_MESSAGE, code=LOST_CODE)
