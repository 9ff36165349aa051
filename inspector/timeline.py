"""Entries → what happened in each run: steps of a timeline, attempts, gaps, rates. Pure; one pass."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from streaming.entries import RESET, TOOL_CALL, USAGE, RunStatus, StreamChunk, to_json
from streaming.store.conversations import RunRecord

#: A silence of this length gets a line of its own: somebody who waits for text begins to wonder.
SILENCE: Final = timedelta(seconds=3)
#: Milliseconds below which a rate says nothing.
SHORTEST_RATED: Final = 500
#: In milliseconds; below the second, hundredths of a second are told.
_MINUTE: Final = 60_000
_SHORT: Final = 10_000
#: Steps of a run that are kept: more than anybody reads; the rest is counted.
MOST_STEPS: Final = 1_000
#: Characters that a step keeps of what was said.
MOST_SAID: Final = 20_000


class Kind(enum.StrEnum):
    """What a step of a timeline is."""

    ATTEMPT = "attempt"
    TEXT = "text"
    REASONING = "reasoning"
    CALL = "tool call"
    RESULT = "tool result"
    USAGE = "usage"
    RESET = "reset"
    HOLE = "hole"
    SILENCE = "silence"
    OTHER = "event"
    END = "end"


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a timeline: one entry, or several of one kind in a row."""

    kind: Kind
    #: Of its first and last entry; a silence lies between two.
    entry_id: str
    last_id: str
    attempt: int
    entries: int = 1
    #: Of text, or of what a tool was given or gave back.
    characters: int = 0
    #: A tool's name, a type, a status.
    name: str = ""
    #: For everybody: why a reset came, what failed, how many tokens.
    note: str = ""
    #: What was said, by or to an agent: only for those who ask for it.
    said: str = ""
    #: Something went wrong here.
    is_trouble: bool = False

    @property
    def at(self) -> int:
        """When it began, Unix time in milliseconds by the clock of Redis."""
        return milliseconds_of(self.entry_id)

    @property
    def until(self) -> int:
        """When it ended."""
        return milliseconds_of(self.last_id)

    @property
    def duration(self) -> int:
        """Milliseconds from its first to its last entry."""
        return max(0, self.until - self.at)


@dataclass(slots=True)
class RunTimeline:
    """One run as its entries and its state tell it."""

    #: ``None``: its entries name none (docs/protocol.md, 2.5).
    run: str | None
    record: RunRecord | None = None
    steps: list[Step] = field(default_factory=list)
    #: Steps that are not among them.
    dropped: int = 0
    entries: int = 0
    #: Of the text that counts: since the last reset.
    characters: int = 0
    attempts: list[int] = field(default_factory=list)
    resets: int = 0
    holes: int = 0
    tools: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    first_id: str | None = None
    last_id: str | None = None
    first_text_id: str | None = None
    longest_silence: int = 0
    terminal: StreamChunk | None = None
    #: Tools that have not answered yet, by the call's id.
    waiting_for: dict[str, Step] = field(default_factory=dict)
    #: Of tools that have answered with an error.
    failed_tools: list[str] = field(default_factory=list)

    @property
    def status(self) -> RunStatus | None:
        """Where it stands: by its state, or else by its terminal; ``None``: nobody knows."""
        state = self.record.state if self.record is not None else None
        if state is not None:
            return state.status
        return self.terminal.status if self.terminal is not None else None

    @property
    def created(self) -> int | None:
        """When it was registered; without a state, when its first entry came."""
        state = self.record.state if self.record is not None else None
        if state is not None:
            return state.created
        return milliseconds_of(self.first_id) if self.first_id is not None else None

    @property
    def began(self) -> int | None:
        """When its first attempt did."""
        state = self.record.state if self.record is not None else None
        return state.started if state is not None and state.started is not None else self.first

    @property
    def first(self) -> int | None:
        """When its first entry came."""
        return milliseconds_of(self.first_id) if self.first_id is not None else None

    @property
    def last(self) -> int | None:
        """When its last entry came."""
        return milliseconds_of(self.last_id) if self.last_id is not None else None

    @property
    def rate(self) -> float | None:
        """Entries a second, from the first to the last."""
        return rate_of(self.entries, (self.last or 0) - (self.first or 0))


class TimelineBuilder:
    """Takes entries in order; gives the steps that are complete, and keeps the runs."""

    def __init__(self, records: Iterable[RunRecord] = (), *, keep_said: bool = False) -> None:
        """Build timelines.

        Args:
            records: The states of the conversation's runs, as far as they are known.
            keep_said: Keep what was said, for those who ask for it.
        """
        self._records = {record.run: record for record in records}
        self._keep_said = keep_said
        self._named: dict[str, RunTimeline] = {}
        self._anonymous: RunTimeline | None = None
        self._expected: dict[str | None, tuple[int, int]] = {}
        self._open: tuple[RunTimeline, Step] | None = None
        self._latest: RunTimeline | None = None
        self.runs: list[RunTimeline] = []

    def take(self, entry: StreamChunk) -> list[tuple[RunTimeline, Step]]:
        """Take the next entry. Gives the steps that came to their end by it, each with its run."""
        timeline = self._latest = self._timeline_of(entry)
        steps = self._before(timeline, entry)
        step = self._step_of(timeline, entry)
        self._count(timeline, entry)
        ended = self.flush() if steps or not self._continues(timeline, step) else []
        complete = [(timeline, each) for each in steps]
        if step.kind in (Kind.TEXT, Kind.REASONING):
            self._open = (timeline, step if self._open is None else _joined(self._open[1], step))
        else:
            complete.append((timeline, step))
        for run, each in complete:
            _keep(run, each)
        return ended + complete

    @property
    def latest(self) -> RunTimeline | None:
        """The run that the latest entry belongs to, or that has none yet; ``None``: there is none."""
        if self._latest is None and self._records:
            return RunTimeline(*list(self._records.items())[-1])
        return self._latest

    def flush(self) -> list[tuple[RunTimeline, Step]]:
        """The step that is not complete, as far as it goes; what comes next begins another."""
        given, self._open = [self._open] if self._open is not None else [], None
        for run, step in given:
            _keep(run, step)
        return given

    def finish(self) -> list[RunTimeline]:
        """No more entries come: all runs, those that have none too, in the order in which they began."""
        self.flush()
        for record in self._records.values():
            if record.run not in self._named:
                self.runs.append(RunTimeline(record.run, record))
        return sorted(self.runs, key=lambda run: run.created or 0)

    def _timeline_of(self, entry: StreamChunk) -> RunTimeline:
        found = self._anonymous if entry.run is None else self._named.get(entry.run)
        if found is None:
            found = RunTimeline(entry.run, self._records.get(entry.run or ""))
            self.runs.append(found)
            if entry.run is not None:
                self._named[entry.run] = found
        if entry.run is None:
            # The next entry without a run begins another.
            self._anonymous = None if entry.is_terminal else found
            if entry.is_terminal:
                self._expected.pop(None, None)
        return found

    def _before(self, timeline: RunTimeline, entry: StreamChunk) -> list[Step]:
        """What lies between the entry before and this one."""
        steps: list[Step] = []
        state = timeline.record.state if timeline.record is not None else None
        began = f"{state.started}-0" if state is not None and state.started is not None else None
        last_id = timeline.last_id or began
        quiet = 0 if last_id is None else entry.id.milliseconds - milliseconds_of(last_id)
        timeline.longest_silence = max(timeline.longest_silence, quiet)
        if last_id is not None and quiet >= SILENCE / timedelta(milliseconds=1):
            waiting = ", ".join(call.name for call in timeline.waiting_for.values())
            note = f"waiting for {waiting}" if waiting else ""
            steps.append(Step(Kind.SILENCE, last_id, entry.entry_id, entry.attempt, 0, note=note))
        if entry.attempt not in timeline.attempts:
            timeline.attempts.append(entry.attempt)
            if entry.attempt > 1:
                steps.append(_single(Kind.ATTEMPT, entry, name=str(entry.attempt), is_trouble=True))
        if entry.run is not None and entry.sequence is not None:
            expected = self._expected.get(entry.run, (entry.attempt, 0))
            missing = entry.sequence - (expected[1] if expected[0] == entry.attempt else 0)
            if missing > 0:
                timeline.holes += 1
                note = f"{missing} {'entry is' if missing == 1 else 'entries are'} missing"
                steps.append(_single(Kind.HOLE, entry, entries=missing, note=note, is_trouble=True))
            self._expected[entry.run] = (entry.attempt, entry.sequence + 1)
        return steps

    def _step_of(self, timeline: RunTimeline, entry: StreamChunk) -> Step:
        if entry.is_terminal:
            return _end(entry)
        data = entry.data if isinstance(entry.data, dict) else {}
        match entry.type:
            case None:
                step = self._said(_single(Kind.TEXT, entry), entry.text or "")
            case "reasoning":
                step = self._said(_single(Kind.REASONING, entry), str(data.get("text", "")))
            case "tool_call":
                name = str(data.get("name", ""))
                step = self._said(_single(Kind.CALL, entry, name=name), _as_text(data.get("arguments")))
                timeline.waiting_for[str(data.get("call_id"))] = step
            case "tool_result":
                step = self._result(timeline, entry, data)
            case "usage":
                note = ", ".join(f"{name} {count}" for name, count in _counts(data).items())
                step = _single(Kind.USAGE, entry, note=note)
            case "reset":
                step = _single(Kind.RESET, entry, note=str(data.get("reason", "")), is_trouble=True)
            case other:
                step = self._said(_single(Kind.OTHER, entry, name=other), _as_text(entry.data))
        return step

    def _result(self, timeline: RunTimeline, entry: StreamChunk, data: dict[str, Any]) -> Step:
        call = timeline.waiting_for.pop(str(data.get("call_id")), None)
        is_failed = data.get("failed") is True
        name = call.name if call is not None else ""
        if is_failed:
            timeline.failed_tools.append(name)
        took = f"after {seconds(entry.id.milliseconds - call.at)}" if call is not None else "of no known call"
        note = f"{took}, it failed" if is_failed else took
        step = _single(Kind.RESULT, entry, name=name, note=note, is_trouble=is_failed)
        return self._said(step, _as_text(data.get("result")))

    def _said(self, step: Step, text: str) -> Step:
        return replace(step, characters=len(text), said=text[:MOST_SAID] if self._keep_said else "")

    def _continues(self, timeline: RunTimeline, step: Step) -> bool:
        if self._open is None:
            return False
        run, before = self._open
        return run is timeline and before.kind is step.kind and before.attempt == step.attempt

    @staticmethod
    def _count(timeline: RunTimeline, entry: StreamChunk) -> None:
        timeline.entries += 1
        timeline.first_id = timeline.first_id or entry.entry_id
        timeline.last_id = entry.entry_id
        if entry.is_terminal:
            timeline.terminal = timeline.terminal or entry
        elif entry.type is None:
            timeline.characters += len(entry.text or "")
            timeline.first_text_id = timeline.first_text_id or entry.entry_id
        elif entry.type == RESET:
            timeline.resets += 1
            timeline.characters = 0
            timeline.waiting_for.clear()
        elif entry.type == TOOL_CALL:
            timeline.tools += 1
        elif entry.type == USAGE:
            for name, count in _counts(entry.data).items():
                timeline.tokens[name] = timeline.tokens.get(name, 0) + count


def milliseconds_of(entry_id: str) -> int:
    """When an entry was appended, Unix time in milliseconds by the clock of Redis."""
    return int(entry_id.partition("-")[0])


def plural(count: int, name: str) -> str:
    """A number of things, in words."""
    many = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return f"{count:,} {name if count == 1 else many}"


def rate_of(entries: int, milliseconds: int) -> float | None:
    """Entries a second; ``None``: too short a time to speak of one."""
    return entries * 1000 / milliseconds if milliseconds >= SHORTEST_RATED else None


def seconds(milliseconds: float) -> str:
    """A duration for people."""
    if milliseconds < _MINUTE:
        return f"{milliseconds / 1000:.{2 if milliseconds < _SHORT else 1}f} s"
    minutes, rest = divmod(round(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _keep(timeline: RunTimeline, step: Step) -> None:
    if len(timeline.steps) < MOST_STEPS or step.kind is Kind.END:
        timeline.steps.append(step)
    else:
        timeline.dropped += 1


def _single(kind: Kind, entry: StreamChunk, **more: Any) -> Step:
    return Step(kind, entry.entry_id, entry.entry_id, entry.attempt, **more)


def _end(entry: StreamChunk) -> Step:
    status = entry.status or RunStatus.COMPLETED
    note = ""
    if entry.error is not None:
        note = entry.error if entry.code == status.value else f"{entry.code}: {entry.error}"
    return _single(
        Kind.END, entry, name=status.value, note=note, is_trouble=status is not RunStatus.COMPLETED
    )


def _joined(before: Step, step: Step) -> Step:
    return replace(
        before,
        last_id=step.last_id,
        entries=before.entries + step.entries,
        characters=before.characters + step.characters,
        said=(before.said + step.said)[:MOST_SAID],
    )


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value)


def _counts(data: Any) -> dict[str, int]:
    """Token counts; a provider may give other things beside them."""
    pairs: Sequence[tuple[Any, Any]] = list(data.items()) if isinstance(data, dict) else []
    return {str(name): value for name, value in pairs if type(value) is int}
