"""Conversations as they are stored, made by hand: sound ones, and those that tests break."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from inspector.checks import ConversationCheck, Finding
from inspector.timeline import RunTimeline, TimelineBuilder
from streaming.entries import RunStatus, StreamChunk, chunk_of
from streaming.identifiers import keys_of
from streaming.store.conversations import RunRecord, StoredConversation, StoredKey

CONVERSATION: Final = "c"
RUN: Final = "r"
#: When everything here begins, Unix time in milliseconds.
START: Final = 1_795_000_000_000
TTL: Final = 600_000


def entry(
    sequence: int | None, *, after: int = 0, run: str | None = RUN, attempt: int = 1, **fields: str
) -> StreamChunk:
    """An entry that came so many milliseconds after the start."""
    values = {"text": fields.pop("text", ""), "timestamp": str(START + after), **fields}
    if sequence is not None:
        values["sequence"] = str(sequence)
    if run is not None:
        values["run"] = run
    if attempt > 1:
        values["attempt"] = str(attempt)
    return chunk_of(f"{START + after}-{(sequence or 0) + 1000 * attempt}", values)


def text(sequence: int, said: str = "ab", **more: Any) -> StreamChunk:
    return entry(sequence, text=said, **more)


def end(sequence: int, status: RunStatus = RunStatus.COMPLETED, **more: Any) -> StreamChunk:
    if status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        return entry(sequence, status=status.value, done="true", **more)
    told = {"error": "It broke.", "code": "agent_failed"}
    return entry(sequence, status=status.value, **{**told, **more})


def reset(sequence: int = 0, **more: Any) -> StreamChunk:
    return entry(sequence, type="reset", data='{"reason":"the run starts again"}', **more)


def record(*entries: StreamChunk, **changed: str) -> RunRecord:
    """The state of a run that has these entries."""
    last = entries[-1] if entries else None
    fields = {
        "agent": "Planner",
        "status": RunStatus.RUNNING.value if entries else RunStatus.PENDING.value,
        "attempt": str(last.attempt) if last is not None else "0",
        "next": str((last.sequence or 0) + 1) if last is not None else "0",
        "start": "0-0",
        "created": str(START - 100),
        "lease": str(START + 10_000),
    }
    if entries:
        fields |= {"started": str(START - 50), "owner": "somebody"}
    if last is not None and last.status is not None:
        del fields["lease"]
        fields |= {"status": last.status.value, "terminal": last.entry_id, "ended": str(last.id.milliseconds)}
    return RunRecord(CONVERSATION, RUN, {**fields, **changed})


def stored(*records: RunRecord, now: int = START + 1_000, **ttls: int) -> StoredConversation:
    """A conversation with these runs; ``stream`` and ``runs`` are the times that the keys have left."""
    keys = keys_of(CONVERSATION)
    kinds = ((keys.stream, "stream", "stream"), (keys.runs, "zset", "runs"))
    return StoredConversation(
        CONVERSATION,
        0,
        tuple(StoredKey(name, kind, ttls.get(word, TTL)) for name, kind, word in kinds),
        records,
        now,
    )


def findings_of(
    entries: Iterable[StreamChunk], *records: RunRecord, now: int = START + 1_000, **ttls: int
) -> list[Finding]:
    """What is wrong with these entries."""
    check = ConversationCheck(CONVERSATION)
    for each in entries:
        check.take(each)
    return check.conclude(stored(*records, now=now, **ttls))


def timelines(entries: Iterable[StreamChunk], *records: RunRecord) -> list[RunTimeline]:
    """The runs of these entries."""
    builder = TimelineBuilder(records, keep_said=True)
    for each in entries:
        builder.take(each)
    return builder.finish()


def without(entries: list[StreamChunk], place: int) -> list[StreamChunk]:
    return entries[:place] + entries[place + 1 :]
