"""A cluster's slots move from one master to another while streams in them are read."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from tests.topologies.servers import PATIENCE, Cluster, ask, wait_for

STREAM = keys_of("moving").stream


async def move_slot(cluster: Cluster) -> None:
    """Move the stream's slot, with the stream if there is one, to another master."""
    source = (await cluster.master_for(STREAM)).port
    slots = await ask(source, "CLUSTER", "SLOTS")
    target = next(int(master[1]) for _, _, master, *_ in slots if int(master[1]) != source)
    slot = await ask(source, "CLUSTER", "KEYSLOT", STREAM)
    names = {port: str(await ask(port, "CLUSTER", "MYID")) for port in (source, target)}
    await ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    await ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    for key in await ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
        await ask(source, "MIGRATE", "127.0.0.1", target, key, 0, 5000)
    for port in (target, source):
        await ask(port, "CLUSTER", "SETSLOT", slot, "NODE", names[target])


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_stream_whose_slot_moves_is_followed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    """What other programs add comes from wherever the slot is, also if there was no stream when it moved."""
    # Where there is no stream Redis says nothing of the move: what comes first is found by the look.
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(milliseconds=300))
    text, has_come = "", asyncio.Condition()

    async def read() -> None:
        nonlocal text
        async for chunk in handler.read_stream("moving", "$"):
            async with has_come:
                text += chunk.text or ""
                has_come.notify_all()

    async def comes(added: str) -> None:
        await redis.xadd(STREAM, {"text": added})
        async with asyncio.timeout(PATIENCE), has_come:
            await has_come.wait_for(lambda: text.endswith(added))

    async with (
        connect(cluster.url) as redis,
        RedisStreamResponseHandler(connect(cluster.url)) as handler,
    ):
        await redis.xadd(STREAM, {"text": "0"})
        reading = asyncio.create_task(read())
        follower = handler.reader._follower

        async def is_followed() -> bool:
            return any(map(follower._foreign.follows, follower._streams.values()))

        await wait_for(is_followed, "the stream is followed")
        await comes("1")
        if not is_there:
            await redis.delete(STREAM)
        await move_slot(cluster)
        await comes("2")
        monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(hours=1))
        await comes("3")
        await comes("4")
        reading.cancel()
        await asyncio.wait({reading})
        await redis.delete(STREAM)
    assert text == "1234"
