"""Runs of Azure AI Agents that are left, cancelled, refused, or whose Redis is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError

from bridges.azure_ai_agents import AsyncRecordingAgentEventHandler
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import RunStatus
from streaming.errors import StreamUnavailable
from streaming.writing.leases import LeaseKeeper
from tests.redis_server import redis_server
from tests.vendor_streams import agents_service as service
from tests.vendor_streams.endpoint import Answer, events, json_answer, local_endpoint
from tests.vendor_streams.recorded import BOUND, TTL, recorded, text_of, types_of
from tests.vendor_streams.test_agents_recording import Listening, record

#: The SDK doesn't close a response that is left in its middle: its connection is closed when it is collected.
leaves_a_response = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")


@pytest.fixture
def collected() -> Iterator[None]:
    """What the SDK leaves is collected while its warning is expected, and in no later test."""
    yield
    gc.collect()


async def test_a_run_that_never_gets_its_outputs(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A program that leaves while the run waits for tool outputs ends it as interrupted."""
    async with local_endpoint(Answer(events(*service.calling_tools()))) as endpoint:
        await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    end = (await recorded(handler, conversation))[-1]
    assert (end.status, end.code) == (RunStatus.INTERRUPTED, "interrupted")


async def test_a_request_that_is_refused(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A run that the service refuses has failed for its readers too, and they learn no detail."""
    async with local_endpoint(json_answer({"error": {"message": "quota of asst_abc"}}, 429)) as endpoint:
        with pytest.raises(HttpResponseError):
            await record(endpoint, AsyncRecordingAgentEventHandler(handler, conversation, leases=leases))
    (end,) = await recorded(handler, conversation)
    assert (end.status, end.error) == (RunStatus.FAILED, "The agent failed.")


@leaves_a_response
@pytest.mark.usefixtures("collected")
async def test_a_program_that_is_cancelled(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A task that is cancelled in mid-answer ends its run as interrupted, with the text so far."""
    body = events(*service.beginning(), service.delta("so far"), service.delta("more"))
    answer = Answer(body, hold_at=body.index(b"more") - 10)
    async with local_endpoint(answer) as endpoint:
        seen = AsyncRecordingAgentEventHandler(handler, conversation, leases=leases)
        task = asyncio.create_task(record(endpoint, seen))
        await _until_text(handler, conversation)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), chunks[-1].status) == ("so far", RunStatus.INTERRUPTED)


@leaves_a_response
@pytest.mark.usefixtures("collected")
async def test_a_run_that_is_cancelled_by_its_readers(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A cancel through this project's routes interrupts the wait for the service and ends the iteration."""
    body = events(*service.beginning(), service.delta("so far"), service.delta("more"))
    answer = Answer(body, hold_at=body.index(b"more") - 10)
    async with local_endpoint(answer) as endpoint:
        seen = AsyncRecordingAgentEventHandler(handler, conversation, leases=leases)
        task = asyncio.create_task(record(endpoint, seen))
        await _until_text(handler, conversation)
        await handler.runs.request_cancel(conversation, seen.run)
        await task
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), chunks[-1].status, seen.status) == (
        "so far",
        RunStatus.CANCELLED,
        RunStatus.CANCELLED,
    )


async def _until_text(handler: RedisStreamResponseHandler, conversation: str) -> None:
    async with asyncio.timeout(BOUND):
        async for chunk in handler.read_stream(conversation):
            if chunk.text:
                return


async def test_a_handler_that_is_dropped(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Without ``async with``, a handler that nobody holds any more lets its run's lease go."""
    answer = Answer(events(*service.calling_tools()))
    async with local_endpoint(answer) as endpoint, service.async_client(endpoint.url) as client:
        seen = AsyncRecordingAgentEventHandler(handler, conversation, leases=leases)
        async with await client.runs.stream(
            service.THREAD, agent_id="asst_abc", event_handler=seen
        ) as stream:
            await stream.until_done()
        assert leases.running() == [(conversation, seen.run)]
        del seen, stream
        gc.collect()
        assert leases.running() == []


@leaves_a_response
@pytest.mark.usefixtures("collected")
async def test_a_redis_that_is_away_is_not_swallowed(tmp_path: Path, conversation: str) -> None:
    """When Redis stays away, the iteration raises, although the vendor swallows what handlers raise."""
    with redis_server(tmp_path / "redis") as server:
        await server.start()
        leases = LeaseKeeper(lambda: connect(server.url), TTL)
        body = events(*service.whole_run())
        answer = Answer(body, hold_at=body.index(b"data: [DONE]") - 100)
        async with (
            local_endpoint(answer) as endpoint,
            RedisStreamResponseHandler(connect(server.url), TTL) as handler,
        ):
            seen = Listening(handler, conversation, leases=leases, patience=timedelta(milliseconds=200))

            async def lose(stream: AsyncRecordingAgentEventHandler) -> None:
                async for event_type, _data, _result in stream:
                    if event_type == "thread.message.in_progress":
                        server.kill()
                        answer.hold.set()

            with pytest.raises(StreamUnavailable):
                await record(endpoint, seen, lose)
        assert leases.running() == []
        await asyncio.to_thread(leases.close)


async def test_a_redis_that_loses_its_data(tmp_path: Path, conversation: str) -> None:
    """A stream that Redis has forgotten in mid-run is written again, whole."""
    with redis_server(tmp_path / "redis") as server:
        await server.start()
        leases = LeaseKeeper(lambda: connect(server.url), TTL)
        async with (
            local_endpoint(Answer(events(*service.whole_run()))) as endpoint,
            RedisStreamResponseHandler(connect(server.url), TTL) as handler,
        ):
            seen = AsyncRecordingAgentEventHandler(handler, conversation, leases=leases)

            async def lose(stream: AsyncRecordingAgentEventHandler) -> None:
                async for event_type, _data, _result in stream:
                    if event_type == "thread.message.in_progress":
                        async with server.client() as redis:
                            await redis.flushall()

            await record(endpoint, seen, lose)
            chunks = await recorded(handler, conversation)
        kinds = types_of(chunks)
        assert (text_of(chunks), kinds[0], kinds[1]) == (service.ANSWER, "reset", "thread.run.created")
        assert kinds[-1] == "completed"
        await asyncio.to_thread(leases.close)
