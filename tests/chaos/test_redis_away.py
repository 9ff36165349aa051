"""Redis stays away for longer than a writer waits: docs/protocol.md, 3.6 and 4.12."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate

from hosting.durable_state import find_answer
from redis_callback import RedisStreamCallback
from streaming.durable_answer import DurableAnswer
from streaming.entries import StreamChunk
from streaming.text_blocks import chunks_of
from streaming.writing.restorer import StreamRestorer
from streaming.writing.writer import RunWriter
from tests.chaos.redis_load import PacedAgent, assert_whole, handler_on
from tests.contract.reading import text_of
from tests.contract.scripted_agent import DurableConversation
from tests.redis_server import redis_server
from tests.service import eventually

CHUNKS: Final = 3_000
#: Entries that may wait in memory in this test.
BUFFER: Final = 500
#: How long the writer waits for Redis in this test, and the lease of its run.
PATIENCE: Final = timedelta(seconds=2)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bounds: what is shown is that they hold, not how large they are."""
    monkeypatch.setattr("streaming.writing.writer.BUFFER_ENTRIES", BUFFER)
    monkeypatch.setattr("streaming.store.run_store.LEASE", PATIENCE)
    for module in ("liveness", "patrol"):
        monkeypatch.setattr(f"streaming.reading.{module}.LIVENESS_INTERVAL", timedelta(milliseconds=200))


class CountingAgent(PacedAgent):
    """Counts the chunks that it was let say."""

    said = 0

    async def _updates(self) -> AsyncIterator[AgentResponseUpdate]:
        async for update in super()._updates():
            self.said += 1
            yield update


@pytest.mark.parametrize("persistence", ["yes", "no"])
async def test_a_run_goes_on_without_its_stream_which_is_repaired_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, persistence: str
) -> None:
    """The agent waits, then finishes without Redis and says so; readers get the whole answer afterwards."""
    texts = [f"{number} " for number in range(CHUNKS)]
    agent = CountingAgent(*texts, pause=timedelta(0))
    with redis_server(tmp_path, "--appendonly", persistence) as server:
        await server.start()
        async with handler_on(server.url) as handler, asyncio.timeout(50):
            conversation = DurableConversation(handler, agent)
            conversation._callback = RedisStreamCallback(lambda: handler, patience=PATIENCE)

            async def find(_conversation: str, run: str | None) -> DurableAnswer | None:
                return find_answer("Scripted", conversation.saved, run)

            async def read() -> list[StreamChunk]:
                restore = StreamRestorer(handler.runs, find).restore
                opened = await handler.reader.open("c", run="r", restore=restore)
                return [chunk async for batch in opened for chunk in chunks_of(batch)]

            await handler.runs.register("c", "r", "Scripted")
            reading = asyncio.create_task(read())
            running = conversation.start("r")

            async def has_begun() -> bool:
                return agent.said > 100

            await eventually(has_begun, "a run in progress")
            server.kill()
            await _is_pushed_back(conversation, agent, running)
            response = await running
            assert response.text == "".join(texts)
            assert "run goes on without its stream: conversation=c run=r" in caplog.text
            assert not conversation._callback._runs
            await server.start()
            waited, late = await reading, await read()
    assert text_of(waited) == "".join(texts)
    assert [chunk for chunk in waited if chunk.is_terminal] == waited[-1:]
    # What was stored before the end came is discarded by the reset.
    assert_whole(late, "".join(texts))


async def _is_pushed_back(
    conversation: DurableConversation, agent: CountingAgent, running: asyncio.Task[AgentResponse]
) -> None:
    (stream,) = conversation._callback._runs.values()
    writer: RunWriter = stream._writer

    async def is_full() -> bool:
        return writer._buffered >= BUFFER

    began = time.monotonic()
    await eventually(is_full, "a full buffer")
    held_at = agent.said
    while not running.done() and time.monotonic() - began < PATIENCE.total_seconds() / 2:
        assert writer._buffered <= BUFFER
        assert agent.said <= held_at + 1
        await asyncio.sleep(0.02)
