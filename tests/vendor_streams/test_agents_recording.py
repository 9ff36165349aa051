"""Runs of Azure AI Agents in the stream: the vendor's clients, a local service, a real Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from azure.ai.agents.aio import AgentsClient as AsyncAgentsClient
from azure.ai.agents.models import AsyncFunctionTool, AsyncToolSet, FunctionTool, ThreadRun, ToolOutput, ToolSet
from azure.core.exceptions import HttpResponseError

from bridges.azure_ai_agents import AsyncRecordingAgentEventHandler, RecordingAgentEventHandler
from bridges.background_streams import BackgroundStreams
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import RunStatus
from streaming.writing.leases import LeaseKeeper
from tests.redis_server import RedisServer
from tests.vendor_streams import agents_service as service
from tests.vendor_streams.endpoint import Answer, events, json_answer, local_endpoint
from tests.vendor_streams.recorded import TTL, recorded, text_of, types_of


async def test_a_run(handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str) -> None:
    """X."""
    async with local_endpoint(Answer(events(*service.whole_run()))) as endpoint, service.async_client(endpoint.url) as client:
        async with AsyncRecordingAgentEventHandler(handler, conversation, leases=leases) as seen:
            async with await client.runs.stream(service.THREAD, agent_id="asst_abc", event_handler=seen) as stream:
                await stream.until_done()
    chunks = await recorded(handler, conversation)
    print(types_of(chunks))
    assert text_of(chunks) == service.ANSWER
    for c in chunks: print(c.type, c.text, c.data)
