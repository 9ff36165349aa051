"""Why a run is where it is, in sentences: what its entries and its state tell to who looks for a cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from inspector.timeline import Kind, RunTimeline, Step, plural, seconds
from streaming.entries import RunStatus
from streaming.store.run_states import RunState
from streaming.writing.restorer import OWNER

#: A run that has told nothing for so long, in milliseconds, seems stuck to those who wait.
QUIET: Final = 5_000

_BY_CODE: Final = {
    "agent_failed": "The agent or its model raised an error{place}. What it was is in the log of the service "
    'that executed the run, in the line "agent failed: conversation={conversation} run={run}".',
    "run_timeout": "The run took longer than RUN_TIMEOUT_MINUTES allows and was stopped{place}.",
    "not_started": "The task hub did not take the run: it did not answer, or refused. No agent was asked.",
    "interrupted": "The process that executed the run is gone: it was killed, crashed or was stopped{place}.",
    "incomplete": "The answer reached a limit of the other service{place}.",
    "connection_lost": "The other service was not there to the end{place}.",
}


def causes(timeline: RunTimeline, now: int) -> list[str]:
    """What to know of a run; empty where it simply went well.

    Args:
        timeline: The run, with all of its entries.
        now: The time by the clock of Redis, Unix time in milliseconds.
    """
    return [*_end(timeline), *_progress(timeline, now), *_repeats(timeline), *_tools(timeline)]


def _end(timeline: RunTimeline) -> Iterator[str]:
    terminal, status, state = timeline.terminal, timeline.status, _state(timeline)
    has_begun = state is None or state.attempt > 0
    if terminal is not None and terminal.code == RunStatus.INTERRUPTED.value and not has_begun:
        yield "It was never begun: the service that had accepted it was gone before its turn came."
    elif terminal is not None and terminal.error is not None:
        told = _BY_CODE.get(terminal.code or "", "It ended with the code {code}{place}.")
        yield told.format(
            conversation=timeline.record.conversation_id if timeline.record else "…",
            run=timeline.run,
            code=terminal.code,
            place=_place(timeline),
        )
    elif status is RunStatus.CANCELLED and not has_begun:
        yield "It was cancelled before any agent had begun it."
    elif status is RunStatus.CANCELLED:
        yield f"Somebody asked for it to be stopped{_place(timeline)}. What was said until then stays."
    elif terminal is None and status is not None and status.is_terminal:
        yield f"It ended as {status}, but its end is gone from the stream: deleted, or lost by Redis."


def _progress(timeline: RunTimeline, now: int) -> Iterator[str]:
    record, state = timeline.record, _state(timeline)
    if record is None or state is None or state.status.is_terminal:
        return
    lease = record.lease
    if lease is None or lease < now:
        gone = f"its lease ended {seconds(now - lease)} ago" if lease is not None else "it has no lease"
        yield (
            f"Nobody executes it: {gone}, so its process is gone. The next reader ends it as interrupted, "
            "unless a scheduler resumes it."
        )
    elif state.status is RunStatus.PENDING:
        yield (
            f"It waits for its turn, for {seconds(now - state.created)} by now: another run of the "
            "conversation comes first, all workers are busy, or none is there. Who accepted it is alive."
        )
    else:
        last = max(timeline.last or 0, state.started or 0)
        if now - last >= QUIET:
            what = _waiting(timeline) or "the model or a tool"
            quiet = seconds(now - last)
            yield f"Its process is alive, but nothing has come for {quiet}: it waits for {what}."
    if record.is_cancel_requested:
        yield "Somebody has asked for it to be stopped; it has not stopped yet."


def _repeats(timeline: RunTimeline) -> Iterator[str]:
    resets = [step for step in timeline.steps if step.kind is Kind.RESET]
    if timeline.record is not None and timeline.record.owner == OWNER:
        yield (
            "Redis had lost this answer (flushed, failed over, or expired); a reader had it rebuilt from the "
            "durable answer. Tool calls and the pace of the first time are gone."
        )
    elif len(timeline.attempts) > 1 or timeline.attempts not in ([], [1]):
        told = "; ".join(f"{step.entry_id}: {step.note}" for step in resets)
        lost = any("lost" in step.note for step in resets)
        why = (
            "Redis lost what it had (flushed, or failed over)" if lost else "the attempt before was given up"
        )
        yield f"It was executed or written {_times(timeline)}: {why}. Reset at {told or '…'}."
    elif resets:
        yield f"Readers were told to discard what they had: {resets[-1].note} ({resets[-1].entry_id})."
    if timeline.holes:
        yield "Entries are missing from it: trimmed, deleted, or lost by Redis. Readers are told of a gap."


def _tools(timeline: RunTimeline) -> Iterator[str]:
    if timeline.failed_tools:
        names = ", ".join(dict.fromkeys(name or "a tool" for name in timeline.failed_tools))
        yield f"Tools failed: {names}. The model was told so, and went on with that."


def _times(timeline: RunTimeline) -> str:
    return f"again, as attempt {timeline.attempts[-1]}"


def _place(timeline: RunTimeline) -> str:
    """Where it was when it ended."""
    waiting = _waiting(timeline)
    if waiting is not None:
        return f" while it waited for {waiting}"
    before, end = _last_before_end(timeline), timeline.terminal
    if before is None or end is None:
        return " before it had given anything"
    given = plural(timeline.entries - 1, "entry")
    what = {
        Kind.TEXT: "in the middle of its text",
        Kind.RESULT: f"after the tool {before.name} had answered",
        Kind.REASONING: "while it was reasoning",
    }.get(before.kind, f"after: {before.kind}")
    quiet = end.id.milliseconds - before.until
    silent = f"; nothing came for {seconds(quiet)} before the end" if quiet >= QUIET else ""
    return f" {what}, after {given} ({before.last_id}){silent}"


def _waiting(timeline: RunTimeline) -> str | None:
    names = [call.name or "a tool" for call in timeline.waiting_for.values()]
    return f"the tool {' and the tool '.join(names)}" if names else None


def _last_before_end(timeline: RunTimeline) -> Step | None:
    told = [step for step in timeline.steps if step.kind not in (Kind.END, Kind.SILENCE, Kind.USAGE)]
    return told[-1] if told else None


def _state(timeline: RunTimeline) -> RunState | None:
    return timeline.record.state if timeline.record is not None else None
