"""Reads a recording once: the timelines of its runs, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from inspector.checks import ConversationCheck, Finding
from inspector.recording import Recording
from inspector.timeline import RunTimeline, TimelineBuilder
from inspector.trouble import explain


@dataclass(frozen=True, slots=True)
class Examination:
    """What a recording has told."""

    #: In the order in which they began.
    runs: Sequence[RunTimeline]
    findings: Sequence[Finding]
    entries: int
    #: All entries were looked at; else there are no findings.
    is_whole: bool


async def examine(recording: Recording, *, keep_said: bool = False, most: int | None = None) -> Examination:
    """Read a recording.

    Args:
        recording: What to read.
        keep_said: Keep what was said in the timelines.
        most: Look at so many entries, at most.

    Raises:
        DamagedRecording: the file is not all there.
        StreamUnavailable: Redis does not answer.
        NotAStream: the conversation's key holds something else.
    """
    before = recording.stored
    builder = TimelineBuilder(before.runs, keep_said=keep_said)
    check = ConversationCheck(recording.conversation_id)
    try:
        if recording.is_stream:
            async for entry in recording.entries(most=most):
                builder.take(entry)
                check.take(entry)
        after = before
        if recording.live is not None:
            # It may have gone on, or away, while it was read.
            after = await recording.live.look(recording.conversation_id) or before
    except RedisError as error:
        raise explain(error) from error
    is_whole = most is None or check.entries < most
    findings = check.conclude(before, after) if is_whole else []
    return Examination(builder.finish(), findings, check.entries, is_whole)
