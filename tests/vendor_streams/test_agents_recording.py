"""Runs of Azure AI Agents in the stream: the vendor's clients, a local service, a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from azure.ai.agents.aio import AgentsClient
from azure.ai.agents.models import (
    AgentStreamEvent,
    AsyncFunctionTool,
    AsyncToolSet,
    MessageDeltaChunk,
    ThreadRun,
)
from azure.core.exceptions import AzureError

from bridges.azure_ai_agents import AsyncRecordingAgentEventHandler
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import RunStatus, StreamChunk
from streaming.writing.leases import LeaseKeeper
from tests.vendor_streams import agents_service as service
from tests.vendor_streams.endpoint import Answer, Endpoint, events, json_answer, local_endpoint
from tests.vendor_streams.recorded import BOUND, recorded, text_of, types_of

Consume = Callable[[AsyncRecordingAgentEventHandler], Awaitable[None]]


async def until_done(stream: AsyncRecordingAgentEventHandler) -> None:
    await stream.until_done()


async def iterate(stream: AsyncRecordingAgentEventHandler) -> None:
    async for _event_type, _data, _result in stream:
        pass


async def record(
    endpoint: Endpoint, seen: AsyncRecordingAgentEventHandler, consume: Consume = until_done
) -> None:
    """Run the agent once, as the vendor's documentation does."""
    async with asyncio.timeout(BOUND), service.async_client(endpoint.url) as client:
        await run_agent(client, seen, consume)


async def run_agent(
    client: AgentsClient, seen: AsyncRecordingAgentEventHandler, consume: Consume = until_done
) -> None:
    """The lines of the documentation."""
    async with (
        seen,
        await client.runs.stream(service.THREAD, agent_id="asst_abc", event_handler=seen) as stream,
    ):
        await consume(stream)


class Listening(AsyncRecordingAgentEventHandler):
    """A program's own handler, which fails in what it does with a delta."""

    heard = ""

    async def on_message_delta(self, delta: MessageDeltaChunk) -> None:
        """Hear a delta."""
        self.heard += delta.text
        raise ZeroDivisionError


@pytest.mark.parametrize("consume", [until_done, iterate])
async def test_a_run_is_recorded(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, consume: Consume
) -> None:
    """The deltas are the text, each other event an entry of its type, and the run's end the terminal."""
    async with local_endpoint(Answer(events(*service.whole_run()))) as endpoint:
        seen = Listening(handler, conversation, leases=leases)
        await record(endpoint, seen, consume)
    chunks = await recorded(handler, conversation)
    assert seen.heard == text_of(chunks) == service.ANSWER
    told = [kind for kind in types_of(chunks) if kind not in ("text", "usage", "thread.message.delta")]
    sent = [name for name, _ in service.whole_run() if name not in ("done", "thread.message.delta")]
    assert told == [*sent, "completed"]
    assert seen.status is RunStatus.COMPLETED
    usage = next(chunk for chunk in chunks if chunk.type == "usage")
    assert usage.data == {"input_token_count": 7, "output_token_count": 5, "total_token_count": 12}


async def test_every_event_of_the_sdk_has_its_entry(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Each event type that the SDK knows, and one that it doesn't, is an entry of that type."""
    ends = ("thread.run.completed", "done", "error", "thread.message.delta")
    kinds = [kind.value for kind in AgentStreamEvent if kind.value not in ends]
    sent = [(kind, {"id": kind, "extra": [1, {"ü": None}]}) for kind in [*kinds, "thread.run.new_thing"]]
    answer = Answer(events(*sent, service.run_event("completed"), service.DONE))
    async with local_endpoint(answer) as endpoint:
        await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    chunks = await recorded(handler, conversation)
    assert [(chunk.type, chunk.data) for chunk in chunks[: len(sent)]] == sent


@pytest.mark.parametrize(
    ("ended", "end"),
    [
        ("completed", (RunStatus.COMPLETED, None)),
        ("cancelled", (RunStatus.CANCELLED, None)),
        ("failed", (RunStatus.FAILED, "agent_failed")),
        ("expired", (RunStatus.FAILED, "run_timeout")),
        ("incomplete", (RunStatus.FAILED, "incomplete")),
    ],
)
@pytest.mark.parametrize("done", [True, False])
async def test_the_terminal_says_how_the_run_ended(
    handler: RedisStreamResponseHandler,
    leases: LeaseKeeper,
    conversation: str,
    *,
    ended: str,
    end: tuple[RunStatus, str | None],
    done: bool,
) -> None:
    """The run's last status decides, also where the service's ``done`` got lost; no detail is told."""
    last = service.run_event(ended, last_error={"code": "server_error", "message": "host 10.0.0.7 is down"})
    sent = [*service.beginning(), service.delta("so far"), last, service.DONE]
    async with local_endpoint(Answer(events(*sent[: None if done else -1]))) as endpoint:
        seen = AsyncRecordingAgentEventHandler(handler, conversation, leases=leases)
        await record(endpoint, seen)
    terminal = (await recorded(handler, conversation))[-1]
    assert (terminal.status, terminal.code) == end
    assert seen.status is terminal.status
    assert "10.0.0.7" not in (terminal.error or "")


async def test_an_error_of_the_service_fails_the_run(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """An ``error`` event, which no ``done`` follows, is an entry, and the run has failed."""
    error = ("error", {"error": {"message": "The server had an error", "code": "server_error"}})
    async with local_endpoint(Answer(events(*service.beginning(), error))) as endpoint:
        await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    chunks = await recorded(handler, conversation)
    assert types_of(chunks)[-2:] == ["error", "failed"]
    assert (chunks[-2].data, chunks[-1].code) == (error[1], "agent_failed")


async def test_what_the_agent_was_told_is_not_in_the_stream(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Readers of typed entries see neither the agent's instructions nor its tools' definitions."""
    async with local_endpoint(Answer(events(*service.whole_run()))) as endpoint:
        await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    data = [chunk.data for chunk in await recorded(handler, conversation) if chunk.type]
    assert "secret" not in str(data)
    assert not any("instructions" in each or "tools" in each for each in data)


async def test_the_complete_message_wins(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Text that the deltas lacked is added; where they differ, readers start again with the right text."""
    first, second = service.message(("one ",)), service.message(("three",), "msg_2")
    first[-2] = service.message_event("completed", "one two ")
    second[-2] = service.message_event("completed", "THREE", "msg_2")
    sent = [*service.beginning(), *first, *second, service.run_event("completed"), service.DONE]
    async with local_endpoint(Answer(events(*sent))) as endpoint:
        await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    chunks = await recorded(handler, conversation)
    assert [chunk.text for chunk in chunks if chunk.text] == ["one ", "two ", "three", "one two THREE"]
    assert types_of(chunks).count("reset") == 1
    assert text_of(chunks) == "one two THREE"


async def test_comments_and_line_ends(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Heartbeats, CR LF, data of several lines and a piece of one byte, which break the SDK, do no harm."""
    body = events(*service.whole_run()).replace(b"\n\n", b"\n\n: heartbeat\n\n", 3).replace(b"\n", b"\r\n")
    body = body.replace(b'"object": "thread.run"', b'\r\ndata: "object": "thread.run"', 1)
    async with local_endpoint(Answer(body, piece=1)) as endpoint:
        await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), chunks[-1].status) == (service.ANSWER, RunStatus.COMPLETED)


async def _cut(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, answer: Answer
) -> list[StreamChunk]:
    async with local_endpoint(answer) as endpoint:
        seen = AsyncRecordingAgentEventHandler(handler, conversation, leases=leases)
        if answer.chunked:
            with pytest.raises(AzureError):
                await record(endpoint, seen)
        else:
            await record(endpoint, seen)
    return await recorded(handler, conversation)


def _is_right(chunks: list[StreamChunk]) -> None:
    """What came is right as far as it goes, and ends with a reason."""
    assert service.ANSWER.startswith(text_of(chunks))
    assert sum(chunk.is_terminal for chunk in chunks) == 1
    assert all(isinstance(chunk.data, dict) for chunk in chunks if chunk.type), "half an event"
    end = chunks[-1]
    if "thread.run.completed" in types_of(chunks):
        assert end.status is RunStatus.COMPLETED
    else:
        assert (end.status, end.code) == (RunStatus.INTERRUPTED, "connection_lost")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_cut_connection_ends_the_run_with_a_reason(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, chunked: bool
) -> None:
    """Wherever the answer is cut, seen as an error or as an end, the stream says so and no half event."""
    body = events(*service.whole_run())
    for cut_at in range(0, len(body), len(body) // 12):
        name = f"{conversation}-{cut_at}"
        _is_right(await _cut(handler, leases, name, Answer(body, cut_at=cut_at, chunked=chunked)))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_connection_cut_at_any_byte(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, chunked: bool
) -> None:
    """At each third byte of the answer: a reason, and no half event."""
    body = events(*service.whole_run())
    for cut_at in range(0, len(body), 3):
        name = f"{conversation}-{cut_at}"
        _is_right(await _cut(handler, leases, name, Answer(body, cut_at=cut_at, chunked=chunked)))


def tools(calls: list[str], *, broken: bool = False) -> AsyncToolSet:
    async def get_weather(city: str) -> str:
        """Tell the weather.

        :param city: Where.
        """
        calls.append(city)
        if broken:
            raise ZeroDivisionError
        return "sunny"

    toolset = AsyncToolSet()
    toolset.add(AsyncFunctionTool({get_weather}))
    return toolset


def _is_the_run_with_tools(chunks: list[StreamChunk]) -> None:
    called = next(chunk for chunk in chunks if chunk.type == "tool_call")
    result = next(chunk for chunk in chunks if chunk.type == "tool_result")
    assert called.data == {"call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Kyōto"}'}
    assert result.data == {"call_id": "call_1", "result": "sunny"}
    kinds = types_of(chunks)
    assert kinds.index("thread.run.requires_action") < kinds.index("done") < kinds.index("tool_result")
    assert (text_of(chunks), kinds.count("done"), kinds[-1]) == (service.ANSWER, 1, "completed")


async def test_functions_called_by_the_sdk(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Where the SDK calls functions itself, both responses are one run, and each call runs once."""
    calls: list[str] = []
    answers = [Answer(events(*service.calling_tools())), Answer(events(*service.after_tools()))]
    async with local_endpoint(*answers) as endpoint, service.async_client(endpoint.url) as client:
        client.enable_auto_function_calls(tools(calls))
        await run_agent(client, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
        submitted = endpoint.requests[1]
    assert calls == ["Kyōto"]
    assert submitted.path.endswith(f"/threads/{service.THREAD}/runs/{service.RUN}/submit_tool_outputs")
    _is_the_run_with_tools(await recorded(handler, conversation))


@pytest.mark.parametrize("late", [False, True])
async def test_functions_called_by_the_program(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, late: bool
) -> None:
    """Outputs that the program submits, in the iteration or after it, continue the same run."""
    answers = [Answer(events(*service.calling_tools())), Answer(events(*service.after_tools()))]
    async with local_endpoint(*answers) as endpoint, service.async_client(endpoint.url) as client:
        waiting: list[ThreadRun] = []

        async def submit(seen: AsyncRecordingAgentEventHandler) -> None:
            await client.runs.submit_tool_outputs_stream(
                thread_id=service.THREAD,
                run_id=waiting.pop().id,
                tool_outputs=[{"tool_call_id": "call_1", "output": "sunny"}],  # type: ignore[list-item]  # JSON is allowed
                event_handler=seen,
            )

        async def consume(stream: AsyncRecordingAgentEventHandler) -> None:
            async for _event_type, data, _result in stream:
                if isinstance(data, ThreadRun) and data.status == "requires_action":
                    waiting.append(data)
                    if not late:
                        await submit(stream)
            if late:
                assert stream.status is None
                await submit(stream)
                await stream.until_done()

        await run_agent(
            client, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases), consume
        )
    _is_the_run_with_tools(await recorded(handler, conversation))


async def test_functions_that_keep_failing(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """When the SDK gives up and cancels the run, its last event, which it makes itself, ends the stream."""
    cancelled = service.run_event("cancelling")[1]
    answers = [Answer(events(*service.calling_tools())), json_answer(cancelled)]
    async with local_endpoint(*answers) as endpoint, service.async_client(endpoint.url) as client:
        client.enable_auto_function_calls(tools([], broken=True), max_retry=0)
        await run_agent(client, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    assert types_of(await recorded(handler, conversation))[-3:] == [
        "done",
        "thread.run.cancelled",
        "cancelled",
    ]
