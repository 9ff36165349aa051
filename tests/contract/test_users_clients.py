"""Clients that a program made for itself, as the published sample does: with the driver's own settings."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.wire import next_replies
from tests.contract.conftest import BOUND, TTL
from tests.contract.reading import COMPLETED, LiveReader, begin, text


@pytest.mark.parametrize("decode_responses", [False, True])
@pytest.mark.parametrize("protocol", [None, 2, 3])
async def test_live_chunks_come_when_they_are_appended(
    real_redis_url: str, monkeypatch: pytest.MonkeyPatch, protocol: int | None, decode_responses: bool
) -> None:
    """Whichever protocol the driver speaks, a reader hears of an append; it does not look now and then."""
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(minutes=5))
    options: dict[str, Any] = {"decode_responses": decode_responses}
    if protocol is not None:
        options["protocol"] = protocol
    client = Redis.from_url(real_redis_url, **options)
    await client.flushall()
    handler = RedisStreamResponseHandler(client, TTL)
    attempt = await begin(handler, "c", "r")
    live = LiveReader(await handler.reader.open("c"))
    async with asyncio.timeout(BOUND):
        for number in range(3):
            next_chunk = asyncio.create_task(live.next())
            await handler.runs.append(attempt, number, [text(str(number))])
            assert (await next_chunk).text == str(number)
        await handler.runs.append(attempt, 3, [COMPLETED])
        assert [chunk.is_done for chunk in await live.rest()] == [True]
    await handler.reader.close()
    await client.aclose()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_messages_that_come_together_are_taken_together(real_redis_url: str, protocol: int) -> None:
    """What the driver has read already is not asked for one by one; nothing is lost at a read's edge."""
    async with Redis.from_url(real_redis_url, protocol=protocol) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("c")
        connection: Any = pubsub.connection
        heard: list[bytes] = []
        batches = 0
        sent = [b"%d " % number * 1_000 for number in range(200)]
        async with client.pipeline(transaction=True) as together:
            for message in sent:
                _ = together.publish("c", message)
            await together.execute()
        async with asyncio.timeout(BOUND):
            while len(heard) < len(sent):
                batch = await next_replies(connection)
                heard += [reply[2] for reply in batch if reply[0] == b"message"]
                batches += 1
    assert heard == sent
    assert batches < len(sent) / 4
