"""Stored entries as readers see them: docs/protocol.md, section 2."""

from __future__ import annotations

import pytest

from streaming.entries import NewEntry, RunStatus, StreamChunk, decode_entry
from streaming.errors import InvalidCursor, InvalidInput
from streaming.identifiers import EntryId, check_conversation_id, keys_of, new_id, parse_entry_id


def test_an_entry_of_the_published_writer() -> None:
    """Text, sequence and timestamp alone are a chunk of an unregistered run."""
    fields = {b"text": b"hi", b"sequence": b"3", b"timestamp": b"17"}
    assert decode_entry(b"1-2", fields) == StreamChunk("1-2", "hi", sequence=3, timestamp=17)


def test_the_end_of_the_published_writer() -> None:
    """Its done marker completes the run."""
    chunk = decode_entry("1-2", {"text": "", "sequence": "4", "timestamp": "17", "done": "true"})
    assert (chunk.is_done, chunk.text, chunk.status) == (True, None, RunStatus.COMPLETED)


def test_an_error_wins_over_done() -> None:
    """An entry with both is a failure: nobody may take it for a complete answer."""
    chunk = decode_entry("1-2", {"done": "true", "error": "no"})
    assert (chunk.is_done, chunk.error, chunk.code, chunk.status) == (False, "no", "failed", RunStatus.FAILED)


@pytest.mark.parametrize("sequence", ["", "x", "-1", "1.5", "\u0661", "9" * 5000])
def test_an_odd_number_is_no_number(sequence: str) -> None:
    """What a foreign writer put in place of a sequence stops no reader."""
    assert decode_entry("1-2", {"text": "a", "sequence": sequence}).sequence is None


def test_bytes_that_are_no_text_stop_no_reader() -> None:
    """Invalid UTF-8 and JSON are shown as well as can be."""
    chunk = decode_entry("1-2", {b"text": b"\xff", b"type": b"tool_call", b"data": b"{"})
    assert (chunk.type, chunk.data) == ("tool_call", "{")
    assert decode_entry("1-2", {b"text": b"a\xff"}).text == "a\ufffd"


@pytest.mark.parametrize("status", [status for status in RunStatus if status.is_terminal])
def test_terminals_come_back_as_they_were_written(status: RunStatus) -> None:
    """Each terminal status is read as the one that was written."""
    fields = NewEntry(timestamp=1, status=status, error="why").fields()
    chunk = decode_entry("1-2", fields)
    assert (chunk.status, chunk.is_terminal) == (status, True)
    assert (chunk.error is None) == (status in (RunStatus.COMPLETED, RunStatus.CANCELLED))


def test_entry_ids_are_ordered_as_numbers() -> None:
    """Ten comes after nine, in both parts."""
    assert parse_entry_id("9-10") > parse_entry_id("9-9")
    assert parse_entry_id("10-0") > parse_entry_id("9-99")
    assert parse_entry_id("7") == EntryId(7, 0)
    with pytest.raises(InvalidCursor):
        parse_entry_id("7-0\n")


@pytest.mark.parametrize("value", ["", ".", "..", "a" * 129, "a b", "a/b", "{a}", "a@b", "é", "a\n", "a:b"])
def test_hostile_conversation_ids_are_refused(value: str) -> None:
    """What the task hub, a cluster or a URL would take for something else is no id."""
    with pytest.raises(InvalidInput, match="conversation_id is"):
        check_conversation_id(value)


def test_ids_that_we_make_are_valid_and_not_guessable() -> None:
    """An id has 128 random bits and passes its own check."""
    made = new_id()
    assert check_conversation_id(made) == made
    assert len(made) == 32
    assert made != new_id()


def test_companion_keys_share_the_slot_of_the_stream() -> None:
    """The hash tag of every companion key is the stream's whole key."""
    keys = keys_of("c")
    assert keys.stream == "agent-stream:c"
    assert all(key.startswith("{agent-stream:c}:") for key in (keys.runs, keys.channel, keys.run("r")))


def test_a_refused_value_is_shown_in_part() -> None:
    """An error repeats enough of a value to recognise it, not all of a megabyte."""
    with pytest.raises(InvalidInput) as caught:
        check_conversation_id("x" * 1_000_000)
    assert len(caught.value.message) < 250
