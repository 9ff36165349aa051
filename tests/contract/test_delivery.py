"""What goes over HTTP of an open read: docs/protocol.md, section 6."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry
from streaming.http.delivery import as_server_sent_events
from tests.contract.reading import BOUND, begin


async def test_heartbeats_come_while_nothing_asked_for_does(
    handler: RedisStreamResponseHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asked for no typed events gets heartbeats while the agent only thinks."""
    monkeypatch.setattr("streaming.http.delivery.HEARTBEAT", timedelta(0))
    attempt = await begin(handler, "c", "r")
    thought = NewEntry(timestamp=1, type="reasoning", data={"text": "hm"})
    await handler.runs.append(attempt, 0, [thought])
    pieces = as_server_sent_events(await handler.reader.open("c"), all_events=False)
    async with asyncio.timeout(BOUND):
        assert [await anext(pieces) for _ in range(2)] == [b"retry: 1000\n\n", b": heartbeat\n\n"]
    await pieces.aclose()
