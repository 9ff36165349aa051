"""The codec of server-sent events: WHATWG HTML, section 9.2; docs/protocol.md, section 6."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.entries import StreamChunk
from streaming.http.delivery import _event
from streaming.sse import (
    ServerSentEvent,
    ServerSentEventDecoder,
    encode_comment,
    encode_event,
    encode_retry,
)

#: The standard's own examples (section 9.2.6), and what a browser dispatches for them.
EXAMPLES = [
    ("data: YHOO\ndata: +2\ndata: 10\n\n", [ServerSentEvent("YHOO\n+2\n10")]),
    (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [ServerSentEvent("first event", id="1"), ServerSentEvent("second event", id="")],
    ),
    ("data\n\ndata\ndata\n\ndata:", [ServerSentEvent(""), ServerSentEvent("\n")]),
    ("data:test\n\ndata: test\n\n", [ServerSentEvent("test"), ServerSentEvent("test")]),
]


@pytest.mark.parametrize(("stream", "events"), EXAMPLES)
def test_the_examples_of_the_standard(stream: str, events: list[ServerSentEvent]) -> None:
    """Each example of the standard gives the events that the standard says."""
    assert ServerSentEventDecoder().feed(stream.encode()) == events


@pytest.mark.parametrize(("stream", "events"), EXAMPLES)
@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_a_stream_cut_anywhere_is_read_the_same(
    stream: str, events: list[ServerSentEvent], line_end: str
) -> None:
    """Whatever the line ends, a stream cut at any byte gives the same events."""
    sent = b"\xef\xbb\xbf" + stream.replace("\n", line_end).encode()
    for cut in range(len(sent) + 1):
        decoder = ServerSentEventDecoder()
        # A last lone CR is only known to be a line's end when more comes.
        assert decoder.feed(sent[:cut]) + decoder.feed(sent[cut:]) + decoder.feed(b":") == events


#: Texts that look like the format, and any others; half an emoji too.
HOSTILE = st.text(st.sampled_from("\r\n:\0 \ufeff\u2028\x85\x0b😀\ud83ddataeventidretry0-9")) | st.text()


def as_it_arrives(text: str) -> str:
    """The format can't carry CR, nor UTF-8 half a surrogate pair."""
    return re.sub("\r\n|\r", "\n", text).encode("utf-8", "replace").decode()


@given(st.lists(st.tuples(HOSTILE, st.sampled_from(["message", "done", "tool_call"])), max_size=4))
def test_what_is_written_is_read(sent: list[tuple[str, str]]) -> None:
    """Any text survives the way, wherever the stream is cut; every line end arrives as LF, though."""
    stream = encode_retry(1_000) + encode_comment("heartbeat")
    stream += b"".join(encode_event(name, text, entry_id=f"{n}-0") for n, (text, name) in enumerate(sent))
    expected = [ServerSentEvent(as_it_arrives(text), name, f"{n}-0") for n, (text, name) in enumerate(sent)]
    for cut in range(len(stream) + 1):
        decoder = ServerSentEventDecoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == expected
    decoder = ServerSentEventDecoder()
    assert [event for byte in stream for event in decoder.feed(bytes([byte]))] == expected


#: Entries as a hostile or broken writer may have stored them.
CHUNKS = st.builds(
    StreamChunk,
    entry_id=st.just("7-0"),
    text=HOSTILE,
    type=st.none()
    | HOSTILE
    | st.sampled_from(["done", "error", "message", "reset", "gap", "cancelled", "id"]),
    data=st.dictionaries(HOSTILE, HOSTILE, max_size=2),
    error=st.none() | HOSTILE,
    code=st.none() | HOSTILE,
)


@settings(max_examples=1_000)
@given(CHUNKS, st.booleans())
def test_no_entry_can_forge_an_event(chunk: StreamChunk, all_events: bool) -> None:
    """Whatever is stored, an entry is at most one event: never an end that is none, nor another's cursor."""
    decoder = ServerSentEventDecoder()
    before = decoder.feed(encode_event("message", "before", entry_id="6-0"))
    events = decoder.feed(_event(chunk, all_events=all_events))
    after = decoder.feed(encode_event("message", "after", entry_id="8-0"))
    assert (len(before), len(after), decoder.retry) == (1, 1, None)
    assert len(events) <= 1
    for event in events:
        assert (event.event == "error") == (chunk.error is not None)
        assert event.event not in ("done", "cancelled")
        assert event.id == ("6-0" if event.event == "gap" else "7-0")
        if event.event == "message":
            assert event.data == as_it_arrives(chunk.text or "")


@pytest.mark.parametrize(
    "text", ["x\n\nevent: done\ndata: [DONE]", "x\r\revent: done\rdata: y", "\nid: 9-9\n", ":", "\u2028\x85"]
)
def test_text_can_not_forge_an_event(text: str) -> None:
    """Whatever an agent says is one message event with the id it was given."""
    (event,) = ServerSentEventDecoder().feed(encode_event("message", text, entry_id="1-0"))
    assert (event.event, event.id) == ("message", "1-0")


def test_an_unfinished_event_is_discarded() -> None:
    """An event without its empty line is not given: its entry comes again after the reconnect."""
    assert ServerSentEventDecoder().feed(encode_event("message", "x")[:-1]) == []


def test_comments_and_retry_are_no_events() -> None:
    """Heartbeats and retry reach the decoder and nobody else."""
    decoder = ServerSentEventDecoder()
    assert decoder.feed(encode_comment("heartbeat") + encode_retry(1500)) == []
    assert decoder.retry == 1500


def test_an_event_without_an_id_keeps_the_cursor() -> None:
    """The last event id stays in force over events that have none."""
    decoder = ServerSentEventDecoder()
    events = decoder.feed(encode_event("message", "a", entry_id="1-0") + encode_event("gap", "{}"))
    assert [event.id for event in events] == ["1-0", "1-0"]


def test_lone_cr_ends_a_line_at_once() -> None:
    """A stream whose lines end with CR gives its last event without waiting for what comes next."""
    decoder = ServerSentEventDecoder()
    assert decoder.feed(b"data: x\r\r") == [ServerSentEvent("x")]
    assert decoder.feed(b"\ndata: y\r\n") == []
    assert decoder.feed(b"\r\n") == [ServerSentEvent("y")]


def test_id_of_an_unfinished_event_does_not_count() -> None:
    """An ``id`` moves the cursor only with its empty line: what was cut off has to come again."""
    decoder = ServerSentEventDecoder()
    decoder.feed(encode_event("message", "a", entry_id="1-0"))
    decoder.feed(encode_event("message", "b", entry_id="2-0")[:-1])
    assert decoder.last_event_id == "1-0"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "2-0"


def test_id_alone_moves_the_cursor() -> None:
    """A block with nothing but an ``id`` is no event, and moves the cursor; an empty one takes it back."""
    decoder = ServerSentEventDecoder()
    assert decoder.feed(b"id: 5-0\n\n") == []
    assert decoder.last_event_id == "5-0"
    assert decoder.feed(b"id\ndata: x\n\n") == [ServerSentEvent("x", id="")]


def test_id_stays_in_force_over_a_reconnect() -> None:
    """A decoder given the last id has it in force for events without one, and tells which those are."""
    decoder = ServerSentEventDecoder("7-0")
    gap, text = decoder.feed(encode_event("gap", "{}") + encode_event("message", "x", entry_id="7-0"))
    assert (gap.id, gap.has_own_id) == ("7-0", False)
    assert (text.id, text.has_own_id) == ("7-0", True)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "²", "1" * 5_000, "1s"])
def test_retry_that_is_no_number_is_ignored(value: str) -> None:
    """Only ASCII digits set the time to wait, and not so many that nobody could mean them."""
    decoder = ServerSentEventDecoder()
    decoder.feed(f"retry: 250\nretry: {value}\n\n".encode())
    assert decoder.retry == 250


def test_what_is_held_back_can_be_bounded() -> None:
    """The decoder tells how much it holds of an unfinished event, and counts the comments it has seen."""
    decoder = ServerSentEventDecoder()
    for _ in range(3):
        decoder.feed(b"data: 12345678\ndata: ")
    assert decoder.pending == 3 * 21
    assert len(decoder.feed(b"\n\n" + encode_comment("heartbeat"))) == 1
    assert (decoder.pending, decoder.comments) == (0, 1)
