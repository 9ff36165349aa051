"""What is taken below the driver, over a wire that brings it in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import StreamChunk
from streaming.shared_connection import SharedConnection
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of
from tests.redis_server import RedisServer

#: Nothing here takes a tenth of it; a hang is to fail, not to last.
BOUND = 30.0
#: Nothing that Redis sends is as short: each piece ends in the middle of something.
PIECE = 7


@asynccontextmanager
async def dribbling(server: RedisServer) -> AsyncIterator[str]:
    """The URL of that Redis, whose words arrive a few bytes at a time, each in a turn of the loop."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: int) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                for at in range(0, len(data), piece):
                    writer.write(data[at : at + piece])
                    await asyncio.sleep(0)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pass_on(reader, redis_writer, 65_536), pass_on(redis_reader, writer, PIECE))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        host, port = proxy.sockets[0].getsockname()
        yield f"redis://{host}:{port}/0"


async def test_replies_in_pieces(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a reply is cut, and however often the pool has its connection back, each is whole."""
    monkeypatch.setattr("streaming.shared_connection.LOOK_INTERVAL", timedelta(milliseconds=2))
    monkeypatch.setattr("streaming.shared_connection.HELD_AT_MOST", timedelta(milliseconds=10))
    async with dribbling(server) as url, connect(url) as client, asyncio.timeout(BOUND):
        shared = SharedConnection(client)
        said = [f"é{number}\r\n" * 5 for number in range(300)]
        for first in range(0, len(said), 10):
            some = said[first : first + 10]
            replies = await shared.ask([("ECHO", each) for each in some])
            assert [reply.decode() for reply in replies] == some


@pytest.mark.parametrize("protocol", [2, 3])
async def test_messages_in_pieces(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: int
) -> None:
    """Live chunks come once and in order, though the driver takes its subscription back in mid-message."""
    monkeypatch.setattr("streaming.reading.follower.PING_INTERVAL", timedelta(milliseconds=3))
    async with dribbling(server) as url, asyncio.timeout(BOUND):
        writing = RedisStreamResponseHandler(connect(server.url))
        reading = RedisStreamResponseHandler(Redis.from_url(url, protocol=protocol))
        attempt = await begin(writing, "c", "r")
        read = asyncio.create_task(read_all(reading, "c"))
        for number in range(200):
            await writing.runs.append(attempt, number, [text(f"é{number}\r\n")])
        await writing.runs.append(attempt, 200, [COMPLETED])
        chunks: list[StreamChunk] = await read
        assert text_of(chunks) == "".join(f"é{number}\r\n" for number in range(200))
        assert [chunk.sequence for chunk in chunks] == list(range(201))
        await reading.aclose()
        await writing.aclose()
    # Readers would get over a subscription that is lost.
    assert "redis away" not in caplog.text
