"""Entries → pushes: what is told, in which order, and how a client knows that something is missing."""

from __future__ import annotations

from typing import Any

from bridges.signalr.messages import PUSH_LIMIT, PushedRun
from streaming.entries import RunStatus, StreamChunk
from streaming.reading.told import LOST_CODE


def told(*batches: list[StreamChunk]) -> list[tuple[str, dict[str, Any]]]:
    run = PushedRun("c", "r")
    return [(push.target, push.argument) for batch in batches for push in run.pushes(batch)]


def text(number: int, content: str = "x") -> StreamChunk:
    return StreamChunk(entry_id=f"{number}-0", text=content, run="r", sequence=number)


def links(pushes: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    return [(argument["previousEntryId"], argument["entryId"]) for _, argument in pushes]


def test_text_of_a_batch_goes_out_together() -> None:
    """Texts that follow each other are one push, up to the last one's id; what else there is goes alone."""
    call = StreamChunk(entry_id="3-0", type="tool_call", data={"name": "f"}, run="r", sequence=3)
    done = StreamChunk(entry_id="5-0", is_done=True, status=RunStatus.COMPLETED, run="r", sequence=5)
    pushes = told([text(1, "a"), text(2, "b"), call, text(4, "c"), done])
    assert [target for target, _ in pushes] == ["agentMessage", "agentEvent", "agentMessage", "agentDone"]
    assert pushes[0][1] == {
        "conversationId": "c",
        "correlationId": "r",
        "text": "ab",
        "entryId": "2-0",
        "previousEntryId": "",
        "sequence": 2,
        "attempt": 1,
    }
    assert pushes[1][1]["data"] == {"name": "f"}
    assert pushes[3][1]["status"] == "completed"
    assert links(pushes) == [("", "2-0"), ("2-0", "3-0"), ("3-0", "4-0"), ("4-0", "5-0")]


def test_nothing_waits_for_the_next_batch() -> None:
    """Each batch is told at once."""
    assert links(told([text(1)], [], [text(2)])) == [("", "1-0"), ("1-0", "2-0")]


def test_long_text_is_told_in_pieces() -> None:
    """No push is longer than the limit; an entry that is leaves a hole that a client notices."""
    half = "x" * (PUSH_LIMIT // 2 + 1)
    assert links(told([text(1, half), text(2, half)])) == [("", "1-0"), ("1-0", "2-0")]
    assert links(told([text(1), text(2, "x" * (PUSH_LIMIT + 1)), text(3)])) == [("", "1-0"), ("2-0", "3-0")]
    large = StreamChunk(entry_id="2-0", type="tool_result", data={"result": "x" * PUSH_LIMIT}, sequence=2)
    assert links(told([text(1), large, text(3)])) == [("", "1-0"), ("2-0", "3-0")]


def test_what_only_the_reader_says_breaks_the_chain() -> None:
    """Where the reader tells of a gap or a new beginning, clients are to ask the stream themselves."""
    gap = StreamChunk(entry_id="1-0", type="gap", data={}, is_entry=False)
    assert links(told([text(1), gap, text(5)])) == [("", "1-0"), ("", "5-0")]


def test_failures() -> None:
    """A failed run is an error with its code; of a stream that is lost nobody is told: it may be rebuilt."""
    failed = StreamChunk(
        entry_id="2-0", error="It failed.", code="agent_failed", status=RunStatus.FAILED, run="r", sequence=1
    )
    (target, argument), *rest = told([failed])
    assert (target, argument["code"], argument["error"], rest) == (
        "agentError",
        "agent_failed",
        "It failed.",
        [],
    )
    assert told([StreamChunk(entry_id="2-0", error="Lost.", code=LOST_CODE)]) == []
