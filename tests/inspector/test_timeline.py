"""Timelines: what entries tell of their runs, and the causes that are read off them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inspector.causes import causes
from inspector.reports import describe
from inspector.timeline import Kind, seconds
from streaming.entries import RunStatus, StreamChunk
from streaming.store.conversations import RunRecord
from tests.inspector.stored import START, end, entry, record, reset, text, timelines


def event(sequence: int, kind: str, after: int = 0, **data: Any) -> StreamChunk:
    return entry(sequence, after=after, type=kind, data=json.dumps(data))


CALL = event(1, "tool_call", 100, call_id="1", name="weather", arguments='{"city":"Tokyo"}')
RESULT = event(2, "tool_result", 350, call_id="1", result="sunny")


def kinds(entries: list[StreamChunk]) -> list[str]:
    (run,) = timelines(entries)
    return [step.kind.value for step in run.steps]


def test_entries_of_one_kind_are_one_step() -> None:
    """Text in a row is one step with its counts and its rate; other entries are steps of their own."""
    entries = [*(text(place, after=40 * place) for place in range(51)), end(51, after=2_000)]
    (run,) = timelines(entries, record(*entries))
    assert [(step.kind, step.entries, step.characters) for step in run.steps] == [
        (Kind.TEXT, 51, 102),
        (Kind.END, 1, 0),
    ]
    assert describe(run.steps[0]) == "51 entries, 102 characters in 2.00 s (25.5/s)"
    assert (run.entries, run.characters, run.status) == (52, 102, RunStatus.COMPLETED)
    assert run.rate == pytest.approx(26)
    assert run.steps[0].said == "ab" * 51


def test_a_silence_tells_for_what() -> None:
    """A silence of seconds is a step, and names the tool that had not answered."""
    late = event(2, "tool_result", 5_100, call_id="1", result="sunny")
    (run,) = timelines([text(0), CALL, late])
    assert [step.kind for step in run.steps] == [Kind.TEXT, Kind.CALL, Kind.SILENCE, Kind.RESULT]
    assert describe(run.steps[2]) == "nothing for 5.00 s, waiting for weather"
    assert describe(run.steps[3]) == "weather after 5.00 s (5 characters)"
    assert run.longest_silence == 5_000


def test_a_silence_before_the_first_entry() -> None:
    """That nothing came after the run had begun is a silence, too."""
    entries = [text(0, after=8_000)]
    (run,) = timelines(entries, record(*entries))
    assert [step.kind for step in run.steps] == [Kind.SILENCE, Kind.TEXT]


def test_attempts_resets_and_holes() -> None:
    """An attempt that takes over, its reset, and entries that are missing are steps; text counts anew."""
    entries = [text(0), text(3, after=1), reset(attempt=2, after=2), text(1, "xyz", attempt=2, after=3)]
    (run,) = timelines(entries)
    assert [step.kind for step in run.steps] == [
        *(Kind.TEXT, Kind.HOLE, Kind.TEXT),
        *(Kind.ATTEMPT, Kind.RESET, Kind.TEXT),
    ]
    assert (run.attempts, run.resets, run.holes, run.characters) == ([1, 2], 1, 1, 3)
    assert describe(run.steps[1]) == "2 entries are missing"


def test_anonymous_runs_end_at_their_ends() -> None:
    """Entries that name no run are a run up to their end; what comes after is another."""
    entries = [entry(0, run=None, text="a"), entry(1, run=None, done="true"), entry(0, run=None, text="b")]
    runs = timelines(entries)
    assert [(run.run, run.entries, run.status) for run in runs] == [
        (None, 2, RunStatus.COMPLETED),
        (None, 1, None),
    ]


def test_runs_without_entries_are_there() -> None:
    """A run that waits for its turn has a timeline without steps."""
    (run,) = timelines([], record())
    assert (run.status, run.steps) == (RunStatus.PENDING, [])


def told(entries: list[StreamChunk], state: RunRecord | None, now: int = START + 1_000) -> str:
    (run,) = timelines(entries, *([state] if state else []))
    return " ".join(causes(run, now))


@pytest.mark.parametrize(
    ("entries", "changed", "now", "sentence"),
    [
        ([text(0), end(1, after=5)], {}, 1_000, ""),
        ([text(0), end(1, RunStatus.FAILED)], {}, 0, "in the middle of its text, after 1 entry"),
        ([text(0), end(1, RunStatus.FAILED)], {}, 0, "agent failed: conversation=c run=r"),
        ([end(0, RunStatus.FAILED)], {}, 0, "before it had given anything"),
        ([text(0), CALL, end(2, RunStatus.FAILED, after=200)], {}, 0, "waited for the tool weather"),
        ([text(0), end(1, RunStatus.FAILED, code="run_timeout")], {}, 0, "RUN_TIMEOUT_MINUTES"),
        ([text(0), end(1, RunStatus.FAILED, after=9_000, code="run_timeout")], {}, 0, "nothing came for 9.0"),
        ([text(0), end(1, RunStatus.FAILED, code="interrupted")], {}, 0, "process that executed the run is"),
        ([end(0, RunStatus.FAILED, code="interrupted")], {"attempt": "0"}, 0, "never begun"),
        ([end(0, RunStatus.FAILED, code="not_started")], {}, 0, "did not take the run"),
        ([end(0, RunStatus.FAILED, code="odd")], {}, 0, "the code odd"),
        ([text(0), end(1, RunStatus.CANCELLED)], {}, 0, "Somebody asked for it to be stopped"),
        ([end(0, RunStatus.CANCELLED)], {"attempt": "0"}, 0, "before any agent had begun it"),
        ([text(0)], {"status": "completed"}, 0, "its end is gone from the stream"),
        ([text(0)], {}, 15_000, "Nobody executes it: its lease ended 5.00 s ago"),
        ([text(0)], {}, 9_000, "nothing has come for 9.00 s: it waits for the model or a tool"),
        ([text(0), CALL], {}, 9_000, "it waits for the tool weather"),
        ([text(0)], {"cancel": "1"}, 1_000, "it has not stopped yet"),
        ([], {}, 5_000, "waits for its turn"),
        ([reset(attempt=2), text(1, attempt=2)], {}, 0, "again, as attempt 2"),
        ([reset(), text(1), end(2)], {"owner": "durable-state"}, 0, "rebuilt from the durable answer"),
        ([text(0), reset(1), text(2), end(3)], {}, 0, "the run starts again"),
        ([text(0), text(2)], {}, 0, "Entries are missing"),
    ],
)
def test_the_cause_is_told(
    entries: list[StreamChunk], changed: dict[str, str], now: int, sentence: str
) -> None:
    """Whatever became of a run is told in a sentence; a run that went well needs none."""
    assert sentence in (causes_told := told(entries, record(*entries, **changed), START + now))
    assert bool(sentence) == bool(causes_told)


def test_a_failed_tool_is_told() -> None:
    """A tool that failed is marked in its step and among the causes, though the run went on."""
    failed = event(2, "tool_result", 350, call_id="1", result="Error", failed=True)
    assert "Tools failed: weather" in told([text(0), CALL, failed, end(3, after=400)], None)
    assert told([text(0), CALL, RESULT, end(3, after=400)], None) == ""


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0.00 s"), (9_994, "9.99 s"), (12_340, "12.3 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")],
)
def test_durations(milliseconds: int, text: str) -> None:
    """Durations are told as people say them."""
    assert seconds(milliseconds) == text
