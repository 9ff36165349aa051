"""Findings: each invariant of docs/protocol.md, 2 and 3, that a stored stream breaks, and nothing else."""

from __future__ import annotations

import pytest

from streaming.entries import RunStatus, StreamChunk
from streaming.store.conversations import FOR_EVER, RunRecord
from tests.inspector.stored import START, end, entry, findings_of, record, reset, text, without

SOUND = [text(0), text(1, after=5), text(2, after=9), end(3, after=10)]
TWICE = [text(0), text(1), reset(attempt=2, after=5), text(1, attempt=2, after=6), end(2, attempt=2, after=7)]


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        (SOUND, record(*SOUND)),
        (TWICE, record(*TWICE)),
        (SOUND[:2], record(*SOUND[:2])),
        ([], record()),
        # Its state has expired, as it may while later runs keep the stream.
        (SOUND, None),
        # Ended before any attempt, as if by the first.
        ([end(0, RunStatus.CANCELLED)], record(end(0, RunStatus.CANCELLED), attempt="0")),
        # Redis had lost all of attempt 1.
        (TWICE[2:], record(*TWICE)),
        # A foreign writer's, of which nothing is promised.
        ([entry(7, run=None, text="x"), entry(3, run=None, done="true"), entry(None, run=None)], None),
    ],
)
def test_nothing_is_found_where_nothing_is_wrong(entries: list[StreamChunk], state: RunRecord | None) -> None:
    """Sound streams have no findings: ended, going on, pending, executed twice, rewritten, foreign."""
    assert findings_of(entries, *([state] if state else [])) == []


@pytest.mark.parametrize(
    ("code", "entries", "state", "at"),
    [
        ("hole", without(SOUND, 1), record(*SOUND), 1),
        ("hole", SOUND[2:], record(*SOUND), 0),
        ("repeated", [text(0), text(0, after=1), text(1, after=2)], record(text(1, after=2)), 1),
        ("no_sequence", [text(0), entry(None, after=1), text(1, after=2)], record(text(1, after=2)), 1),
        ("second_terminal", [*SOUND, end(4, after=20)], record(*SOUND), 4),
        ("entry_after_terminal", [*SOUND, text(4, after=20), text(5, after=21)], record(*SOUND), 4),
        ("older_attempt", [*TWICE[:4], text(2, after=8)], None, 4),
        ("no_reset", [text(0), text(0, attempt=2, after=1)], record(text(0, attempt=2, after=1)), 1),
        ("unclear_end", [entry(0, done="true", status="failed")], None, 0),
        ("state_behind", TWICE[:4], record(*TWICE[:2]), 3),
        ("state_differs", SOUND[:2], record(*SOUND[:3]), 1),
        ("state_differs", SOUND[:3], record(*SOUND[:2]), 2),
        ("before_start", SOUND, record(*SOUND, start=f"{START + 7}-0"), 0),
        ("terminal_differs", SOUND, record(*SOUND, status="failed"), 3),
        ("not_ended", SOUND, record(*SOUND, status="running", lease=str(START + 9_000)), 3),
    ],
)
def test_what_is_wrong_is_found_once(
    code: str, entries: list[StreamChunk], state: RunRecord | None, at: int
) -> None:
    """Each broken invariant is one finding, whose sentence has the entry's id and a meaning."""
    findings = findings_of(entries, *([state] if state else []))
    assert [finding.code for finding in findings] == [code]
    assert findings[0].entry_id == entries[at].entry_id
    assert entries[at].entry_id in findings[0].message
    assert ": " in findings[0].message
    assert findings[0].message.endswith(".")


def test_a_stream_that_is_gone() -> None:
    """A state that counts entries where there is no stream is one finding, ended or not."""
    assert [finding.code for finding in findings_of([], record(*SOUND))] == ["stream_gone"]
    assert [finding.code for finding in findings_of([], record(*SOUND[:2]))] == ["stream_gone"]


def test_a_lost_end() -> None:
    """A run that has ended without its terminal in the stream is found."""
    codes = [finding.code for finding in findings_of(SOUND[:3], record(*SOUND))]
    assert codes == ["state_differs", "no_terminal"]


def test_keys_that_live_for_ever() -> None:
    """Each key without a time to live is found."""
    findings = findings_of(SOUND, record(*SOUND), stream=FOR_EVER, runs=FOR_EVER)
    assert [finding.code for finding in findings] == ["no_ttl", "no_ttl"]
    assert "agent-stream:c" in findings[0].message


@pytest.mark.parametrize("entries", [[], SOUND[:2]])
def test_a_lost_producer(entries: list[StreamChunk]) -> None:
    """A run in progress whose lease has lapsed has lost its producer; one whose lease is held has not."""
    assert findings_of(entries, record(*entries), now=START + 9_999) == []
    findings = findings_of(entries, record(*entries), now=START + 15_000)
    assert [finding.code for finding in findings] == ["no_producer"]
    assert "5.00 s ago" in findings[0].message


def test_a_damaged_state() -> None:
    """A state that can't be read is a finding, not a failure."""
    for changed in ({"attempt": "many"}, {"status": "asleep"}):
        findings = findings_of(SOUND, record(*SOUND, **changed))
        assert [finding.code for finding in findings] == ["damaged_state"]
