"""Blocks of text entries are the same as their chunks, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.entries import StreamChunk, decode_entry
from streaming.sse import encode_event
from streaming.text_blocks import TextBlock, chunks_of, parts_of

RUN = b"0123456789abcdef"


def entry(at: int, text: bytes, *more: bytes, sequence: bytes | None = None) -> list[Any]:
    """An entry as the driver's parser gives it."""
    number = b"%d" % at if sequence is None else sequence
    return [b"17-%d" % at, [b"text", text, b"sequence", number, b"timestamp", b"17", *more]]


def of_run(at: int, text: bytes = b"word ", run: bytes = RUN, attempt: int = 1) -> list[Any]:
    """An entry of a registered run."""
    more = (b"attempt", b"%d" % attempt) if attempt > 1 else ()
    return entry(at, text, b"run", run, *more)


def expected(entries: list[list[Any]]) -> list[StreamChunk]:
    """The chunks, each read alone."""
    return [decode_entry(entry_id, fields) for entry_id, fields in entries]


def sizes(entries: list[list[Any]]) -> list[int]:
    """Of the parts; 0 for a chunk."""
    return [len(part) if isinstance(part, TextBlock) else 0 for part in parts_of(entries)]


@given(
    st.lists(
        st.one_of(
            st.builds(of_run, st.integers(0, 5), st.binary(max_size=8), st.sampled_from([RUN, b"r2"])),
            st.builds(lambda at, attempt: of_run(at, attempt=attempt), st.integers(0, 5), st.integers(1, 3)),
            st.builds(entry, st.integers(0, 5), st.binary(max_size=8)),
            st.builds(lambda at: entry(at, b"", b"done", b"true"), st.integers(0, 5)),
            st.builds(lambda at: entry(at, b"", b"type", b"usage", b"data", b"{}"), st.integers(0, 5)),
            st.lists(st.binary(max_size=4), max_size=9).map(lambda fields: [b"17-1", fields]),
            st.just([b"17-1", [b"text", b"x", b"sequence", b"-1", b"timestamp", b"1", b"run", RUN]]),
        ),
        max_size=12,
    )
)
def test_parts_are_the_entries(entries: list[list[Any]]) -> None:
    """Whatever a stream has, its parts give each entry once, in order, as if each had been read alone."""
    parts = parts_of(entries)
    assert list(chunks_of(parts)) == expected(entries)
    for part in parts:
        if isinstance(part, TextBlock):
            chunks = list(part)
            sequences = [chunk.sequence for chunk in chunks]
            assert sequences == list(range(part.first_sequence, part.end.sequence))
            assert {(chunk.run, chunk.attempt) for chunk in chunks} == {(part.run, part.attempt)}
            assert all(chunk.type is None and not chunk.is_terminal for chunk in chunks)
            assert part.last == chunks[-1].id


@given(st.lists(st.one_of(st.binary(max_size=12), st.text(max_size=12).map(str.encode)), min_size=1))
def test_a_block_is_encoded_as_its_chunks_are(texts: list[bytes]) -> None:
    """Line ends of every kind, and bytes that are no UTF-8, come out as with one entry at a time."""
    entries = [of_run(at, text) for at, text in enumerate(texts)]
    [block] = parts_of(entries)
    one_by_one = [
        encode_event("message", chunk.text or "", entry_id=chunk.entry_id) for chunk in expected(entries)
    ]
    assert block.encoded == b"".join(one_by_one)


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ([], []),
        ([of_run(0), of_run(1), of_run(2)], [3]),
        ([entry(0, b"a"), entry(1, b"b")], [2]),
        ([of_run(0), of_run(2)], [1, 1]),
        ([of_run(9), of_run(10), of_run(11)], [3]),
        ([of_run(0), of_run(1, run=b"other"), of_run(2)], [1, 1, 1]),
        ([of_run(0), of_run(1), of_run(0, attempt=2), of_run(1, attempt=2)], [2, 2]),
        ([of_run(0), entry(1, b"", b"run", RUN, b"done", b"true")], [1, 0]),
        ([of_run(0), [b"17-1", [b"text", b"x"]], of_run(1)], [1, 0, 1]),
        ([entry(7, b"x", sequence=b"007"), entry(8, b"x", sequence=b"008")], [1, 1]),
        ([entry(0, b"x", sequence=b"9" * 5000), of_run(0)], [0, 1]),
        ([[b"17-1", {b"text": b"x", b"sequence": b"0", b"timestamp": b"1"}]], [0]),
    ],
)
def test_what_stays_together(entries: list[list[Any]], parts: list[int]) -> None:
    """Text of one attempt without a hole is one block; everything else stands alone."""
    assert sizes(entries) == parts
