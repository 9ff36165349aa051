"""Conversations, runs and findings as people and programs are shown them: lines, tables and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from inspector.causes import causes
from inspector.checks import Finding
from inspector.screen import Line, Screen, Styled
from inspector.timeline import Kind, RunTimeline, Step, plural, rate_of, seconds
from streaming.entries import RunStatus
from streaming.store.conversations import FOR_EVER, Glance, RunRecord, StoredConversation

_STATUS_STYLES: Final = {
    RunStatus.PENDING: "warn",
    RunStatus.RUNNING: "live",
    RunStatus.COMPLETED: "good",
    RunStatus.CANCELLED: "warn",
    RunStatus.FAILED: "bad",
    RunStatus.INTERRUPTED: "bad",
}
_LIST_COLUMNS: Final = ("conversation", "agent", "status", ">entries", ">age", ">expires in", "producer")
_STEP_COLUMNS: Final = (">after", "", "what", "entry")


def producer_of(record: RunRecord | None, now: int) -> str:
    """Whether somebody executes a run: ``alive``, ``gone``, or ``-`` where nobody has to."""
    state = record.state if record is not None else None
    if record is None or state is None or state.status.is_terminal:
        return "-"
    return "alive" if (record.lease or 0) >= now else "gone"


def show_list(screen: Screen, glances: Iterable[Glance], now: int) -> None:
    """The conversations as a table."""
    screen.table(_LIST_COLUMNS, [_list_row(glance, now) for glance in glances])


def _list_row(glance: Glance, now: int) -> Line:
    record = glance.latest_run
    state = record.state if record is not None else None
    producer = producer_of(record, now)
    status: Styled | str = "-"
    if not glance.is_stream:
        status = Styled("not a stream", "bad")
    elif state is not None:
        status = Styled(state.status.value, _STATUS_STYLES[state.status])
    return (
        glance.conversation_id,
        state.agent if state is not None else "-",
        status,
        str(glance.entries),
        seconds(max(0, now - glance.latest)) if glance.latest else "-",
        _ttl(glance.ttl),
        Styled(producer, {"alive": "good", "gone": "bad"}.get(producer, "dim")),
    )


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


def show_conversation(
    screen: Screen, stored: StoredConversation, runs: Sequence[RunTimeline], *, with_text: bool
) -> None:
    """A conversation as timelines of its runs."""
    ttls = [key.ttl for key in stored.keys if not key.name.endswith("}") and key.kind == "stream"]
    expires = f" · expires in {_ttl(ttls[0])}" if ttls else " · no stream"
    screen.line(
        Styled("conversation ", "dim"),
        Styled(stored.conversation_id, "strong"),
        Styled(f" · {plural(stored.entries, 'entry')} · {plural(len(runs), 'run')}{expires}", "dim"),
    )
    for number, run in enumerate(runs, start=1):
        screen.line()
        show_run(screen, run, stored.now, number=number, with_text=with_text)


def show_run(screen: Screen, run: RunTimeline, now: int, *, number: int, with_text: bool) -> None:
    """One run: who, how it went, its steps, and why."""
    _show_head(screen, run, number)
    for line in _summary(run):
        screen.line(Styled(f"  {line}", "dim"))
    if run.steps:
        start = run.created or run.steps[0].at
        if with_text:
            for step in run.steps:
                show_step(screen, step, start, with_text=True)
        else:
            screen.table(_STEP_COLUMNS, [_step_row(step, start) for step in run.steps])
    if run.dropped:
        screen.line(Styled(f"  … and {run.dropped} more steps: export has them all", "dim"))
    for cause in causes(run, now):
        screen.line(Styled("  ⇒ ", "warn"), cause)


def _show_head(screen: Screen, run: RunTimeline, number: int) -> None:
    state = run.record.state if run.record is not None else None
    status = run.status
    screen.line(
        Styled(f"run {number} ", "dim"),
        Styled(run.run or "(anonymous)", "strong"),
        Styled(f" · {state.agent}" if state is not None else "", "dim"),
        " · ",
        Styled(status.value, _STATUS_STYLES[status]) if status is not None else Styled("not ended", "warn"),
        Styled("" if run.record is not None or run.run is None else " · its state has expired", "dim"),
    )


def _summary(run: RunTimeline) -> list[str]:
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


def _step_row(step: Step, start: int) -> Line:
    return (
        Styled(f"+{seconds(max(0, step.at - start))}", "dim"),
        Styled(step.kind.value, _step_style(step)),
        Styled(describe(step), _step_style(step) if step.is_trouble else ""),
        Styled(step.entry_id if step.kind is not Kind.SILENCE else "", "dim"),
    )


def show_step(screen: Screen, step: Step, start: int, *, with_text: bool) -> None:
    """A step as a line, for where they come one by one."""
    after, kind, what, entry_id = (
        part if isinstance(part, Styled) else Styled(part) for part in _step_row(step, start)
    )
    screen.line(
        Styled(after.text.rjust(10), after.style),
        "  ",
        Styled(kind.text.ljust(11), kind.style),
        "  ",
        what,
        Styled(f"  {entry_id.text}", "dim"),
    )
    if with_text and step.said:
        screen.text(step.said)


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
        "summary": _summary(run),
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


def show_findings(screen: Screen, findings: Sequence[Finding]) -> None:
    """Findings, one line each."""
    for finding in findings:
        screen.line(
            Styled("✗ ", "bad"),
            Styled(finding.conversation_id, "strong"),
            Styled(f" [{finding.code}] ", "dim"),
            finding.message,
        )


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding, for programs."""
    return asdict(finding)


def _step_style(step: Step) -> str:
    if step.kind is Kind.END:
        return "good" if not step.is_trouble else "bad" if step.name != RunStatus.CANCELLED else "warn"
    if step.is_trouble or step.kind is Kind.SILENCE:
        return "warn"
    return {Kind.CALL: "live", Kind.RESULT: "live", Kind.TEXT: ""}.get(step.kind, "dim")


def _first_text(run: RunTimeline) -> int | None:
    return int(run.first_text_id.partition("-")[0]) if run.first_text_id is not None else None


def _ttl(ttl: int) -> str:
    return "never" if ttl == FOR_EVER else seconds(max(0, ttl))


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        # Anybody may choose the ids of a stream.
        return None
