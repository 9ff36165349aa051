"""One address before several shards, as Azure Managed Redis's Enterprise cluster policy has it.

To a client it looks like one server, but no command may take keys of several slots. A cluster of a single
node, which clients are not told is one, refuses the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.exceptions import ClusterCrossSlotError

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from tests.service import connect_http, finished_run, free_port, read_events, running_service, text_of
from tests.topologies.servers import PATIENCE, SLOTS, answers, ask, start_server, valkey, wait_for

CONVERSATIONS = [f"c{number}" for number in range(3)]


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Where the one address is."""
    # Its own choice, 10,000 above the other one, may be somebody's.
    bus = ("--cluster-port", str(free_port()))
    server = start_server(valkey(), tmp_path / "redis", "--cluster-enabled", "yes", *bus)
    try:
        await wait_for(lambda: answers(server.port), "the server answers")
        await ask(server.port, "CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)

        async def is_ready() -> bool:
            return "cluster_state:ok" in str(await ask(server.port, "CLUSTER", "INFO"))

        await wait_for(is_ready, "the server takes commands")
        yield f"redis://127.0.0.1:{server.port}"
    finally:
        server.kill()


async def test_streams_of_foreign_writers_are_followed(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Streams in different slots, whose writers publish nothing, are followed and not refused for ever."""
    redis = connect(url)
    handler = RedisStreamResponseHandler(redis, timedelta(minutes=1))
    streams = [keys_of(conversation).stream for conversation in CONVERSATIONS]
    for stream in streams:
        await redis.xadd(stream, {"text": "a", "sequence": "0", "timestamp": "1"})
    with pytest.raises(ClusterCrossSlotError):
        await redis.xread(dict.fromkeys(streams, "0"))
    has_begun = {conversation: asyncio.Event() for conversation in CONVERSATIONS}

    async def read(conversation: str) -> str:
        text = ""
        async for chunk in handler.read_stream(conversation):
            text += chunk.text or ""
            has_begun[conversation].set()
        return text

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        reads = [group.create_task(read(conversation)) for conversation in CONVERSATIONS]
        for began in has_begun.values():
            await began.wait()
        for stream in streams:
            await redis.xadd(stream, {"text": "b", "sequence": "1", "timestamp": "1"})
            await redis.xadd(stream, {"text": "", "sequence": "2", "timestamp": "1", "done": "true"})
    assert [each.result() for each in reads] == ["ab"] * len(CONVERSATIONS)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    await handler.aclose()


async def test_the_service_runs_on_it(url: str, tmp_path: Path) -> None:
    """Runs in several conversations are streamed as with one server."""
    with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=url) as service:
        async with connect_http(service) as http:
            runs = await asyncio.gather(*(finished_run(http, conversation_id=name) for name in CONVERSATIONS))
            for run in runs:
                events = await read_events(http, str(run["conversation_id"]))
                assert text_of(events) == run["response"] != ""
            assert (await http.get("/api/health")).status_code == 200
