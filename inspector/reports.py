"""Conversations, runs and findings as programs are told them: what becomes JSON, and the words in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from inspector.causes import causes
from inspector.checks import Finding
from inspector.timeline import Kind, RunTimeline, Step, plural, rate_of, seconds
from streaming.store.conversations import FOR_EVER, Glance, RunRecord, StoredConversation


def producer_of(record: RunRecord | None, now: int) -> str:
    """Whether somebody executes a run: ``alive``, ``gone``, or ``-`` where nobody has to."""
    state = record.state if record is not None else None
    if record is None or state is None or state.status.is_terminal:
        return "-"
    return "alive" if (record.lease or 0) >= now else "gone"


def list_json(glance: Glance, now: int) -> dict[str, Any]:
    """A conversation of the list, for programs."""
    state = glance.latest_run.state if glance.latest_run is not None else None
    return {
        "conversation_id": glance.conversation_id,
        "agent": state.agent if state is not None else None,
        "run": state.run if state is not None else None,
        "status": state.status.value if state is not None else None,
        "attempt": state.attempt if state is not None else None,
        "entries": glance.entries,
        "latest_at": _time(glance.latest or None),
        "age_ms": max(0, now - glance.latest) if glance.latest else None,
        "ttl_ms": None if glance.ttl == FOR_EVER else glance.ttl,
        "producer": producer_of(glance.latest_run, now),
        "is_stream": glance.is_stream,
    }


def conversation_json(
    stored: StoredConversation, runs: Sequence[RunTimeline], findings: Sequence[Finding], *, with_text: bool
) -> dict[str, Any]:
    """A conversation, for programs and the page."""
    return {
        "conversation_id": stored.conversation_id,
        "entries": stored.entries,
        "now": _time(stored.now),
        "keys": [asdict(key) for key in stored.keys],
        "runs": [run_json(run, stored.now, with_text=with_text) for run in runs],
        "findings": [finding_json(finding) for finding in findings],
    }


def run_json(run: RunTimeline, now: int, *, with_text: bool) -> dict[str, Any]:
    """One run, for programs and the page."""
    state = run.record.state if run.record is not None else None
    return {
        "run": run.run,
        "agent": state.agent if state is not None else None,
        "status": run.status.value if run.status is not None else None,
        "producer": producer_of(run.record, now),
        "attempts": run.attempts,
        "created_at": _time(run.created),
        "began_at": _time(run.began),
        "first_text_at": _time(_first_text(run)),
        "last_at": _time(run.last),
        "entries": run.entries,
        "characters": run.characters,
        "entries_per_second": round(run.rate, 2) if run.rate is not None else None,
        "longest_silence_ms": run.longest_silence,
        "resets": run.resets,
        "holes": run.holes,
        "tools": run.tools,
        "failed_tools": run.failed_tools,
        "tokens": run.tokens,
        "causes": causes(run, now),
        "summary": summary(run),
        "steps_left_out": run.dropped,
        "steps": [step_json(step, run.created or step.at, with_text=with_text) for step in run.steps],
    }


def step_json(step: Step, start: int, *, with_text: bool) -> dict[str, Any]:
    """One step, for programs and the page."""
    told = {
        "kind": step.kind.value,
        "entry_id": step.entry_id,
        "last_id": step.last_id,
        "attempt": step.attempt,
        "after_ms": max(0, step.at - start),
        "duration_ms": step.duration,
        "entries": step.entries,
        "characters": step.characters,
        "name": step.name,
        "what": describe(step),
        "is_trouble": step.is_trouble,
    }
    return {**told, "text": step.said} if with_text else told


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding, for programs."""
    return asdict(finding)


def summary(run: RunTimeline) -> list[str]:
    """How it went, in a few lines."""
    told = []
    word = "registered" if run.record is not None else "first seen"
    times = [f"{word} {_time(run.created)}"] if run.created is not None else []
    if run.created is not None:
        for name, at in (("began", run.began), ("first entry", run.first), ("first text", _first_text(run))):
            if at is not None:
                times.append(f"{name} +{seconds(max(0, at - run.created))}")
        if run.last is not None:
            times.append(f"last entry +{seconds(max(0, run.last - run.created))}")
    if times:
        told.append(" · ".join(times))
    counts = [plural(run.entries, "entry"), f"{run.characters:,} characters of text"]
    if run.rate is not None:
        counts.append(f"{run.rate:.1f} entries/s")
    if run.longest_silence:
        counts.append(f"longest silence {seconds(run.longest_silence)}")
    counts += [
        plural(count, name)
        for count, name in (
            (run.tools, "tool call"),
            (len(run.failed_tools), "failed tool"),
            (run.resets, "reset"),
            (run.holes, "hole"),
        )
        if count
    ]
    if run.attempts and run.attempts != [1]:
        counts.append(f"attempts {', '.join(map(str, run.attempts))}")
    told.append(" · ".join(counts))
    if run.tokens:
        told.append("tokens: " + ", ".join(f"{name} {count:,}" for name, count in run.tokens.items()))
    return told


def describe(step: Step) -> str:
    """What a step is, in a line; nothing of what was said."""
    size = f"{step.characters:,} characters"
    match step.kind:
        case Kind.TEXT | Kind.REASONING:
            took = f" in {seconds(step.duration)}" if step.entries > 1 else ""
            rate = rate_of(step.entries, step.duration)
            paced = f" ({rate:.1f}/s)" if rate is not None else ""
            what = f"{plural(step.entries, 'entry')}, {size}{took}{paced}"
        case Kind.CALL:
            what = f"{step.name} ({size} of arguments)"
        case Kind.RESULT:
            what = f"{step.name} {step.note} ({size})".strip()
        case Kind.SILENCE:
            what = f"nothing for {seconds(step.duration)}{f', {step.note}' if step.note else ''}"
        case Kind.ATTEMPT:
            what = f"attempt {step.name} begins"
        case Kind.OTHER:
            what = f"{step.name} ({size})"
        case Kind.END:
            what = f"{step.name}{f' · {step.note}' if step.note else ''}"
        case _:
            what = step.note
    return what


def _first_text(run: RunTimeline) -> int | None:
    return int(run.first_text_id.partition("-")[0]) if run.first_text_id is not None else None


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        # Anybody may choose the ids of a stream.
        return None
