"""Conversations, runs and findings as people are shown them: lines and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from inspector.causes import causes
from inspector.checks import Finding
from inspector.reports import describe, producer_of, summary
from inspector.screen import Line, Screen, Styled
from inspector.timeline import Kind, RunTimeline, Step, plural, seconds
from streaming.entries import RunStatus
from streaming.store.conversations import FOR_EVER, Glance, StoredConversation

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
    for line in summary(run):
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


def show_findings(screen: Screen, findings: Sequence[Finding]) -> None:
    """Findings, one line each."""
    for finding in findings:
        screen.line(
            Styled("✗ ", "bad"),
            Styled(finding.conversation_id, "strong"),
            Styled(f" [{finding.code}] ", "dim"),
            finding.message,
        )


def _step_style(step: Step) -> str:
    if step.kind is Kind.END:
        return "good" if not step.is_trouble else "bad" if step.name != RunStatus.CANCELLED else "warn"
    if step.is_trouble or step.kind is Kind.SILENCE:
        return "warn"
    return {Kind.CALL: "live", Kind.RESULT: "live", Kind.TEXT: ""}.get(step.kind, "dim")


def _ttl(ttl: int) -> str:
    return "never" if ttl == FOR_EVER else seconds(max(0, ttl))
