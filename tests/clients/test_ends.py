"""How the Python client's streams go on and end: docs/protocol.md, sections 4 and 6.2."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clients import (
    AnswerIncomplete,
    AnswerText,
    Done,
    EndStatus,
    Failed,
    Gap,
    Reset,
    RunFailed,
    RunInterrupted,
    StreamLost,
    Text,
)
from streaming.sse import encode_event, encode_retry
from tests.clients.replay_server import (
    CONVERSATION,
    NOTHING_MORE,
    Asked,
    Recording,
    Told,
    client_of,
)
from tests.clients.told import (
    GAP,
    HTML,
    RECORDING,
    RESET,
    TEXT,
    ending,
    first_then_honest,
    part,
    refusal,
)


@pytest.mark.parametrize("shown_again", [0, 1, 2, 4])
async def test_reset_that_is_no_entry(shown_again: int) -> None:
    """Section 4.9: after a reset the run comes again under ids that were here before, and none is dropped."""
    again = b"".join(block for _, block in RECORDING.events)

    def behave(asked: Asked) -> Told:
        if asked.cursor is None:
            return part(2)
        if asked.cursor == "2-0" and len(server.asked) < 4:
            # Its entry is gone, which the service says as often as it is asked; cut off at first.
            return part(0, RESET, part(shown_again).body if len(server.asked) < 3 else again)
        return RECORDING.answer(asked)

    async with client_of(behave) as (client, server):
        events = [event async for event in client.stream(CONVERSATION)]
    collected = AnswerText()
    for event in events:
        collected.take(event)
    assert Reset("again", cursor="2-0") in events
    assert collected.text == TEXT


async def test_reset_that_is_an_entry() -> None:
    """A second attempt's text takes the first's place; an earlier reset that comes again is dropped."""
    events = [
        ("1-0", encode_event("message", "wrong ", entry_id="1-0")),
        ("2-0", encode_event("reset", "{}", entry_id="2-0")),
        ("3-0", encode_event("message", "right", entry_id="3-0")),
        ("2-0", encode_event("reset", "{}", entry_id="2-0")),
        ("4-0", encode_event("done", "[DONE]", entry_id="4-0")),
    ]
    async with client_of(Recording(events).answer) as (client, _):
        assert await client.text(CONVERSATION) == "right"


async def test_gap_is_an_error_of_the_text() -> None:
    """Section 4.8: a stream tells of a gap; the text is refused with what there is, never given as whole."""
    recording = Recording([RECORDING.events[0], (None, GAP), *RECORDING.events[2:]])
    async with client_of(recording.answer) as (client, _):
        assert Gap("gone", cursor="1-0") in [event async for event in client.stream(CONVERSATION)]
        with pytest.raises(AnswerIncomplete) as caught:
            await client.text(CONVERSATION)
    assert caught.value.text == "Tokyo 3 days 🗼"


async def test_gap_before_a_reset_is_healed() -> None:
    """When all of the run comes again after a gap, the text is whole."""
    whole = Told(part(1, GAP, RESET).body + part(3, RECORDING.events[3][1]).body)
    async with client_of(first_then_honest(whole)) as (client, _):
        assert await client.text(CONVERSATION) == TEXT


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("agent_failed", RunFailed),
        ("interrupted", RunInterrupted),
        ("stream_lost", StreamLost),
        ("new", RunFailed),
    ],
)
async def test_a_run_that_fails(code: str, kind: type[RunFailed]) -> None:
    """A run's failure is raised as what it is, with its code, and with the text that there is."""
    recording = ending("error", f'{{"code": "{code}", "message": "A sentence."}}')
    async with client_of(recording.answer) as (client, server):
        with pytest.raises(kind) as caught:
            await client.text(CONVERSATION)
        assert len(server.asked) == 1
    assert (type(caught.value), caught.value.code, caught.value.text) == (kind, code, "Tokyo in ")
    assert caught.value.message == "A sentence."
    assert caught.value.cursor == ("2-0" if kind is StreamLost else "9-0")


async def test_a_lost_stream_has_no_id_of_its_own() -> None:
    """Section 4.12: ``stream_lost`` carries the cursor and is told all the same."""
    lost = encode_event("error", '{"code": "stream_lost", "message": "Gone."}', entry_id="2-0")
    async with client_of(lambda _: part(2, lost)) as (client, _):
        with pytest.raises(StreamLost):
            await client.text(CONVERSATION)


async def test_a_cancelled_run_is_a_normal_end() -> None:
    """Section 6.2: a cancelled run ends with its partial text and says so, cut before its done or not."""
    said = encode_event("cancelled", "{}")
    recording = Recording([*RECORDING.events[:2], (None, said), RECORDING.events[3]])
    for trouble in ((), (part(2, said),)):
        async with client_of(first_then_honest(*trouble, recording=recording)) as (client, _):
            answer = await client.answer(CONVERSATION)
        # A server that replays by id alone gives it again; where it does not, the run's done decides.
        assert answer.text == "Tokyo in "
        assert answer.status is EndStatus.CANCELLED


async def test_nothing_more_ends() -> None:
    """Section 4.4: 204 ends a read at once, without events."""
    async with client_of(lambda _: NOTHING_MORE) as (client, server):
        assert [event async for event in client.stream(CONVERSATION, cursor="9-9")] == []
    assert [asked.cursor for asked in server.asked] == ["9-9"]


async def test_nothing_more_is_no_answer() -> None:
    """A text whose end was never seen is not given as the answer."""
    troubles = iter([part(2)])
    async with client_of(lambda _: next(troubles, NOTHING_MORE)) as (client, _):
        with pytest.raises(AnswerIncomplete):
            await client.text(CONVERSATION)


def two_runs() -> Recording:
    """A run that failed, then one that was answered."""
    failed = encode_event("error", '{"code": "agent_failed", "message": "No."}', entry_id="1-9")
    return Recording([RECORDING.events[0], ("1-9", failed), *RECORDING.events[1:]])


async def test_all_that_is_retained() -> None:
    """Section 4.3: a read from 0 goes on through the ends of runs, over cuts too, and is over at 204."""
    recording = two_runs()

    def behave(asked: Asked) -> Told:
        # As the service does: a cursor in the middle of a run covers that run.
        if not recording.has_more(asked.cursor):
            return NOTHING_MORE
        body = recording.after(None if asked.cursor == "0" else asked.cursor)
        return Told(body if asked.cursor == "1-9" else body[: body.find(b"id: 2-0")])

    async with client_of(behave) as (client, server):
        events = [event async for event in client.stream(CONVERSATION, cursor="0")]
    assert [event.kind for event in events] == ["text", "error", "text", "text", "done"]
    assert events[1] == Failed("agent_failed", "No.", cursor="1-9")
    assert [asked.cursor for asked in server.asked] == ["0", "1-9", "3-1"]


async def test_the_last_run_that_is_retained_failed() -> None:
    """A read from 0 whose last run failed raises that run's failure, after the runs before it."""
    failed = ("9-0", encode_event("error", '{"code": "agent_failed", "message": "No."}', entry_id="9-0"))
    recording = Recording([*RECORDING.events, failed])
    texts = []
    async with client_of(recording.answer) as (client, _):
        with pytest.raises(RunFailed):
            texts += [event async for event in client.stream(CONVERSATION, cursor="0")]
    assert texts == []


async def test_follow_goes_on_through_failures() -> None:
    """Section 4.5: who follows is given the failure of a run as an event, and the next run, over cuts."""
    recording, wanted = two_runs(), []
    honest = first_then_honest(replace(recording.answer(Asked("", "", {}, {})), cut=300), recording=recording)
    async with client_of(honest) as (client, server):
        async for event in client.stream(CONVERSATION, follow=True):
            wanted.append(event)
            if isinstance(event, Done):
                break
    assert [event.kind for event in wanted] == ["text", "error", "text", "text", "done"]
    assert all(asked.query["follow"] == "true" for asked in server.asked)


async def test_only_new_that_was_cut_before_the_first_event() -> None:
    """Who wants only what is new and was cut before the first event is told that some may be missing."""
    async with client_of(first_then_honest(Told(encode_retry(0), cut=200))) as (client, _):
        events = [event async for event in client.stream(CONVERSATION, cursor="$")]
    assert isinstance(events[0], Gap)
    assert isinstance(events[1], Text)


async def test_cursor_that_the_service_has_forgotten() -> None:
    """A cursor that the service gave out and no longer knows: a reset, and the run from its start."""

    def behave(asked: Asked) -> Told:
        if asked.headers.get("last-event-id") == "2-0" and len(server.asked) == 2:
            return refusal(400, "invalid_cursor")
        return RECORDING.answer(asked) if len(server.asked) > 1 else part(2)

    async with client_of(behave) as (client, server):
        assert await client.text(CONVERSATION) == TEXT
    assert [asked.cursor for asked in server.asked] == [None, "2-0", None]


@pytest.mark.parametrize(
    "trouble", [HTML, refusal(404, "conversation_not_found"), refusal(404, "run_not_found")]
)
async def test_what_only_a_first_answer_means(trouble: Told) -> None:
    """Once the stream was there, a sign-in page or an unknown conversation is trouble that passes."""
    async with client_of(first_then_honest(part(1), trouble)) as (client, _):
        assert await client.text(CONVERSATION) == TEXT
