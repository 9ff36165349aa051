"""The same without an event loop: the vendor's blocking client, on a thread of its own as in a program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest
from azure.ai.agents.models import AgentEventHandler, FunctionTool, MessageDeltaChunk, ThreadRun, ToolSet
from azure.core.exceptions import AzureError

from bridges.azure_ai_agents import AgentRunReader, RecordingAgentEventHandler
from bridges.background_streams import BackgroundStreams
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import RunStatus
from streaming.errors import StreamUnavailable
from tests.redis_server import RedisServer
from tests.vendor_streams import agents_service as service
from tests.vendor_streams.endpoint import Answer, events, local_endpoint
from tests.vendor_streams.recorded import BOUND, TTL, recorded, text_of, types_of

_T = TypeVar("_T")


async def program(work: Callable[[], _T]) -> _T:
    """Run blocking code to its end, beside the endpoint."""
    async with asyncio.timeout(BOUND):
        return await asyncio.to_thread(work)


def streams_of(server: RedisServer) -> BackgroundStreams:
    return BackgroundStreams(lambda: connect(server.url), TTL)


def record(streams: BackgroundStreams, url: str, conversation: str) -> RunStatus | None:
    """Run the agent once, as the vendor's documentation does."""
    with service.client(url) as client:
        seen = RecordingAgentEventHandler(streams, conversation)
        with seen, client.runs.stream(service.THREAD, agent_id="a", event_handler=seen) as stream:
            stream.until_done()
        return seen.status


class _Hearing(AgentEventHandler[None]):
    text = ""
    ends = 0

    def on_message_delta(self, delta: MessageDeltaChunk) -> None:
        """Hear text."""
        self.text += delta.text

    def on_done(self) -> None:
        """Hear of the end."""
        self.ends += 1


async def test_a_run_is_recorded_and_read(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str
) -> None:
    """A blocking program records a run, and another reads it with the vendor's blocking handler."""

    def work() -> tuple[RunStatus | None, _Hearing, list[str]]:
        with streams_of(redis_for_vendors) as streams:
            status = record(streams, endpoint.url, conversation)
            hearing = _Hearing()
            with AgentRunReader(streams, conversation, event_handler=hearing) as stream:
                stream.until_done()
            reader = AgentRunReader(streams, conversation)
            with reader as stream:
                kinds = [next(stream)[0]]
            with AgentRunReader(streams, conversation, reader.cursor) as stream:
                kinds += [kind for kind, _, _ in stream]
            return status, hearing, kinds

    before = set(threading.enumerate())
    async with local_endpoint(Answer(events(*service.whole_run()))) as endpoint:
        status, hearing, kinds = await program(work)
    assert status is RunStatus.COMPLETED
    assert (hearing.text, hearing.ends) == (service.ANSWER, 1)
    assert kinds == [name for name, _ in service.whole_run()]
    assert text_of(await recorded(handler, conversation)) == service.ANSWER
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if "background-streams" in name or "lease" in name}


@pytest.mark.parametrize("automatic", [True, False])
async def test_functions(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str, automatic: bool
) -> None:
    """Functions that the SDK calls, or whose outputs the program submits, continue the same run."""

    def get_weather(city: str) -> str:
        """Tell the weather.

        :param city: Where.
        """
        return f"sunny in {city}"

    def work() -> None:
        with streams_of(redis_for_vendors) as streams, service.client(endpoint.url) as client:
            if automatic:
                toolset = ToolSet()
                toolset.add(FunctionTool({get_weather}))
                client.enable_auto_function_calls(toolset)
            seen = RecordingAgentEventHandler(streams, conversation)
            with seen, client.runs.stream(service.THREAD, agent_id="a", event_handler=seen) as stream:
                for _kind, data, _result in stream:
                    if not automatic and isinstance(data, ThreadRun) and data.status == "requires_action":
                        client.runs.submit_tool_outputs_stream(
                            thread_id=service.THREAD,
                            run_id=data.id,
                            tool_outputs=[{"tool_call_id": "call_1", "output": "sunny"}],  # type: ignore[list-item]  # JSON is allowed
                            event_handler=stream,
                        )

    answers = [Answer(events(*service.calling_tools())), Answer(events(*service.after_tools()))]
    async with local_endpoint(*answers) as endpoint:
        await program(work)
        assert len(endpoint.requests) == 2
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), types_of(chunks)[-1]) == (service.ANSWER, "completed")


async def test_a_cut_connection(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str
) -> None:
    """A connection that breaks in mid-answer is raised, and ends the stream with a reason."""
    body = events(*service.whole_run())

    def work() -> None:
        with streams_of(redis_for_vendors) as streams, pytest.raises(AzureError):
            record(streams, endpoint.url, conversation)

    async with local_endpoint(Answer(body, cut_at=len(body) // 2)) as endpoint:
        await program(work)
    end = (await recorded(handler, conversation))[-1]
    assert (end.status, end.code) == (RunStatus.INTERRUPTED, "connection_lost")


async def test_a_cancel_is_noticed_at_the_next_event(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str
) -> None:
    """A run that its readers cancel ends as cancelled."""
    body = events(*service.beginning(), service.delta("so far"), service.delta("more"), service.delta("end"))
    answer = Answer(body, hold_at=body.index(b"more") - 10)

    def work() -> RunStatus | None:
        with streams_of(redis_for_vendors) as streams:
            return record(streams, endpoint.url, conversation)

    async with local_endpoint(answer) as endpoint:
        running = asyncio.create_task(program(work))
        async for chunk in handler.read_stream(conversation):
            if chunk.text:
                break
        latest = await handler.runs.latest_run(conversation)
        assert latest is not None
        await handler.runs.request_cancel(conversation, latest.run)
        answer.hold.set()
        assert await running is RunStatus.CANCELLED
    assert (await recorded(handler, conversation))[-1].status is RunStatus.CANCELLED


async def test_streams_that_are_not_open(redis_for_vendors: RedisServer) -> None:
    """What is used outside its ``with`` says so; closing twice does nothing."""
    streams = streams_of(redis_for_vendors)

    def work() -> None:
        with pytest.raises(StreamUnavailable, match="with block"):
            RecordingAgentEventHandler(streams, "c")
        with streams:
            seen = RecordingAgentEventHandler(streams, "c")
        with pytest.raises(StreamUnavailable, match="with block"), seen:
            pass
        streams.close()

    await program(work)
