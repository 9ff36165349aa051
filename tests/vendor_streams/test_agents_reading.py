"""The vendor's event handlers, given a recorded run from the stream, in the middle of it too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.ai.agents.models import (
    AsyncAgentEventHandler,
    MessageDeltaChunk,
    RunStep,
    RunStepDeltaChunk,
    ThreadMessage,
    ThreadRun,
)

from bridges.azure_ai_agents import AsyncAgentRunReader, AsyncRecordingAgentEventHandler
from bridges.event_stream import RunRecording, event_entry
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry, RunStatus
from streaming.errors import StreamingError
from streaming.writing.leases import LeaseKeeper
from tests.contract.reading import begin, complete_run
from tests.vendor_streams import agents_service as service
from tests.vendor_streams.endpoint import Answer, events, local_endpoint
from tests.vendor_streams.recorded import BOUND

CITATION = {
    "type": "file_citation",
    "text": "【4:0†s】",
    "start_index": 1,
    "end_index": 2,
    "file_citation": {"file_id": "f", "quote": "q"},
}
#: A run with all that makes a delta more than its text: annotations, several parts, an image, two messages.
RICH = [
    *service.beginning(),
    service.message_event("created"),
    service.delta("one "),
    service.delta("two "),
    service.delta("【4:0†s】", annotations=[CITATION]),
    service.delta(""),
    service.delta("three\r\n", index=1),
    (
        "thread.message.delta",
        {
            "id": "msg_abc",
            "object": "thread.message.delta",
            "delta": {
                "role": "assistant",
                "content": [{"index": 2, "type": "image_file", "image_file": {"file_id": "f"}}],
            },
        },
    ),
    *service.message(("four", " five"), "msg_2"),
    service.run_event("completed", usage=service.USAGE),
    service.DONE,
]


class Hearing(AsyncAgentEventHandler[str]):
    """A consumer in the published style: the vendor's class, its methods, nothing of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.text = ""

    async def on_message_delta(self, delta: MessageDeltaChunk) -> str:
        """Hear text."""
        self.heard.append(f"delta {delta.id}")
        self.text += delta.text
        return delta.text

    async def on_thread_message(self, message: ThreadMessage) -> None:
        """Hear of a message."""
        self.heard.append("message " + message.status)

    async def on_thread_run(self, run: ThreadRun) -> None:
        """Hear of the run."""
        self.heard.append("run " + run.status)

    async def on_run_step(self, step: RunStep) -> None:
        """Hear of a step."""
        self.heard.append("step " + step.status)

    async def on_run_step_delta(self, delta: RunStepDeltaChunk) -> None:
        """Hear of a part of a step."""
        self.heard.append(f"step delta {delta.id}")

    async def on_error(self, data: str) -> None:
        """Hear of an error."""
        self.heard.append(f"error {data}")

    async def on_done(self) -> None:
        """Hear of the end."""
        self.heard.append("done")

    async def on_unhandled_event(self, event_type: str, event_data: str) -> None:
        """Hear of what the SDK doesn't know."""
        self.heard.append(f"{event_type} {event_data}")


async def _record(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, sent: list[service.Event]
) -> list[tuple[str, Any]]:
    """Record a run; what its own program saw, without what is kept from readers."""
    seen: list[tuple[str, Any]] = []
    answer = Answer(events(*sent))
    async with (
        local_endpoint(answer) as endpoint,
        service.async_client(endpoint.url) as client,
        AsyncRecordingAgentEventHandler(handler, conversation, leases=leases) as recording,
        await client.runs.stream(service.THREAD, agent_id="a", event_handler=recording) as stream,
    ):
        async for event_type, data, _ in stream:
            seen.append((event_type, _plain(data)))
    return seen


def _plain(data: Any) -> Any:
    plain = data if isinstance(data, str) else data.as_dict()
    if isinstance(plain, dict):
        return {name: value for name, value in plain.items() if name not in ("instructions", "tools")}
    return plain


async def _events(reader: AsyncAgentRunReader) -> AsyncIterator[tuple[str, Any, str | None]]:
    """Name, data and cursor of each event."""
    async with asyncio.timeout(BOUND), reader as stream:
        async for event_type, data, _ in stream:
            yield event_type, _plain(data), reader.cursor


async def test_a_reader_sees_what_the_producer_saw(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Each event comes again as it was: its type, its message, its place, its annotations, its text."""
    seen = await _record(handler, leases, conversation, RICH)
    read = [event[:2] async for event in _events(AsyncAgentRunReader(handler, conversation))]
    assert len(read) == len(RICH)
    assert read == seen


async def test_reading_on_from_each_event(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """From the cursor of any event, the events after it come, exactly as without the interruption."""
    await _record(handler, leases, conversation, RICH)
    whole = [event async for event in _events(AsyncAgentRunReader(handler, conversation))]
    for place, (_, _, cursor) in enumerate(whole[:-1], start=1):
        rest = [event async for event in _events(AsyncAgentRunReader(handler, conversation, cursor))]
        assert rest == whole[place:]


async def test_the_published_event_handler(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A handler of the vendor's SDK hears all of its methods called, by ``until_done`` as by iterating."""
    await _record(handler, leases, conversation, [*service.calling_tools()[:-2], *service.after_tools()])
    hearing = Hearing()
    async with AsyncAgentRunReader(handler, conversation, event_handler=hearing) as stream:
        await stream.until_done()
    assert hearing.text == service.ANSWER
    kinds = {heard.split(" ")[0] for heard in hearing.heard}
    assert kinds == {"delta", "message", "run", "step", "done"}
    assert hearing.heard[-2:] == ["run completed", "done"]
    again = Hearing()
    async with AsyncAgentRunReader(handler, conversation, event_handler=again) as stream:
        results = [result async for *_, result in stream if result is not None]
    assert (again.heard, "".join(results)) == (hearing.heard, service.ANSWER)


async def test_a_reader_runs_no_tools(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A reader hears that the run requires action, and of both ends, and submits nothing."""
    sent = [*service.calling_tools(), *service.after_tools(("one ", "two"))]
    seen = await _record(handler, leases, conversation, sent)
    read = [event[:2] async for event in _events(AsyncAgentRunReader(handler, conversation))]
    assert read == seen
    assert [kind for kind, _ in read].count("done") == 2


@pytest.mark.parametrize("ended", ["failed", "expired", "incomplete", "cancelled"])
async def test_a_run_that_the_service_ended_badly(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, ended: str
) -> None:
    """The reader is told by the run's event and by ``done``, as the producer was, also when it resumes."""
    await _record(handler, leases, conversation, [service.run_event(ended), service.DONE])
    read = [event async for event in _events(AsyncAgentRunReader(handler, conversation))]
    assert [kind for kind, _, _ in read] == [f"thread.run.{ended}", "done"]
    rest = [event async for event in _events(AsyncAgentRunReader(handler, conversation, read[0][2]))]
    assert rest == read[1:]


async def test_an_error_of_the_service(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """The service's ``error`` is the last event, as it was for the producer."""
    error = ("error", {"error": {"message": "no", "code": "server_error"}})
    seen = await _record(handler, leases, conversation, [*service.beginning(), error])
    assert [event[:2] async for event in _events(AsyncAgentRunReader(handler, conversation))] == seen


async def test_a_producer_that_was_lost(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Where the stream knows how the run ended and the service's events don't, an ``error`` says it."""
    await _record(handler, leases, conversation, [service.run_event("in_progress")])
    hearing = Hearing()
    async with AsyncAgentRunReader(handler, conversation, event_handler=hearing) as stream:
        await stream.until_done()
    assert hearing.heard[0] == "run in_progress"
    assert hearing.heard[1].startswith("error ")
    assert "connection_lost" in hearing.heard[1]
    assert len(hearing.heard) == 2


async def test_a_reset_and_other_streams(handler: RedisStreamResponseHandler, conversation: str) -> None:
    """A run of this project's own agents reads as deltas too; a ``reset`` is an unhandled event."""
    await begin(handler, conversation, "r", "first")
    attempt = await begin(handler, conversation, "r", "second")
    await handler.runs.append(attempt, attempt.next_sequence, [NewEntry(1, "wrong")])
    attempt = await begin(handler, conversation, "r", "third")
    said = [NewEntry(1, "right"), event_entry("tool_call", {}), NewEntry(1, status=RunStatus.COMPLETED)]
    await handler.runs.append(attempt, attempt.next_sequence, said)
    hearing = Hearing()
    async with AsyncAgentRunReader(handler, conversation, event_handler=hearing) as stream:
        await stream.until_done()
    assert [heard.split(" ")[0] for heard in hearing.heard] == ["delta", "reset", "delta", "done"]
    assert hearing.text == "wrongright"


async def test_a_read_that_is_left(handler: RedisStreamResponseHandler, conversation: str) -> None:
    """Leaving a read in its middle leaves nothing behind; an unknown cursor is an ``error`` event."""
    await complete_run(handler, conversation, "r", "a", "b")
    async with AsyncAgentRunReader(handler, conversation) as stream:
        await anext(stream)
    assert await handler.runs.latest_run(conversation) is not None
    read = [event async for event in _events(AsyncAgentRunReader(handler, conversation, "nonsense"))]
    assert [kind for kind, _, _ in read] == ["error"]
    assert "invalid_cursor" in read[0][1]


async def test_a_recording_begins_once(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A run that has ended is not written a second time, and says so."""
    await complete_run(handler, conversation, "r", "a")
    again = RunRecording(handler, conversation, leases=leases, agent="A", run="r")
    with pytest.raises(StreamingError, match="has ended"):
        await again.begin()
