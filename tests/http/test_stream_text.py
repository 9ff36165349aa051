"""Any text, from any writer, to any number of readers, as it is produced (protocol: stream format, SSE)."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import POOL_SIZE
from streaming.identifiers import keys_of
from tests.service import (
    PATIENCE,
    Service,
    eventually,
    finished_run,
    open_events,
    read_events,
    read_plain,
    start_run,
    stream_path,
    text_of,
)

READERS = 50
RUNS = 50
TEXTS = {
    "line feeds": ["\n", "a\n", "\n\n", "b\n\nc"],
    "CR LF": ["\r\n", "a\r\n", "\r\n\r\nb", "c\r\n"],
    "CR": ["\r", "a\rb", "\r\rc\r"],
    "mixed line ends": ["a\n\rb\r\n\r\rc\n"],
    "forged event": ["\n\nevent: done\ndata: x\n\n", "x\r\rid: 9-9\r\rretry: 1\r\r", "\nevent: error\n"],
    "fields": ["data: x", "event: done", ": comment", "id: 1-1", "retry: 1", "[DONE]"],
    "spaces": [" ", "  a", "a ", "\t", ":", ""],
    "emoji over chunks": ["👩", "\u200d", "🚀", " ", "👍", "🏽", "e", "\u0301"],
    "other line ends": ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"],
    "controls": ["\x00", "a\x00b", "\x1b[31m", "\x7f", "\ufeffa", "\ufffe"],
    "lone surrogates": ["a\ud83dz", "\udc00", "\ud83d"],
    "surrogate pair": ["\ud83d\uddfc"],
    "1 MB": ["é🗼x\n" * 131_072],
    "the empty string": [""],
    "nothing": [],
}


def stored(text: str) -> str:
    """What UTF-8 can carry of a text."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def with_line_feeds(text: str) -> str:
    """The text as server-sent events carry it."""
    return re.sub("\r\n|\r", "\n", text)


async def write(writer: RedisStreamResponseHandler, conversation: str, chunks: list[str]) -> None:
    """Write a whole anonymous run."""
    for sequence, chunk in enumerate(chunks):
        await writer.write_chunk(conversation, chunk, sequence)
    await writer.write_completion(conversation, len(chunks))


@pytest.mark.parametrize("name", TEXTS)
async def test_text_arrives_as_it_is(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler, name: str
) -> None:
    """Text is carried exactly; only server-sent events, which know no CR, make every line end an LF."""
    conversation, chunks = f"text-{name.replace(' ', '-')}", TEXTS[name]
    await write(writer, conversation, chunks)
    assert await read_plain(http, conversation) == "".join(stored(chunk) for chunk in chunks)
    events = await read_events(http, conversation)
    expected = [("message", with_line_feeds(stored(chunk))) for chunk in chunks] + [("done", "[DONE]")]
    assert [(event.event, event.data) for event in events] == expected


async def test_each_chunk_arrives_when_it_is_produced(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler
) -> None:
    """A chunk is at the client before the next one is written: nothing waits for company."""
    await writer.write_chunk("live", "0", 0)
    async with open_events(http, "live") as stream:
        first = await stream.next()
        assert first.data == "0"
        for sequence in range(1, 50):
            written = await writer.write_chunk("live", str(sequence), sequence)
            event = await stream.next()
            assert (event.data, event.id) == (str(sequence), written)
        await writer.write_completion("live", 50)
        assert [event.event for event in await stream.rest()] == ["done"]


async def test_each_chunk_arrives_in_plain_text(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler
) -> None:
    """Plain text comes chunk by chunk too."""
    await writer.write_chunk("live-plain", "0\n", 0)
    headers = {"accept": "text/plain"}
    async with http.stream("GET", stream_path("live-plain"), headers=headers) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"0\n"
        for sequence in range(1, 20):
            await writer.write_chunk("live-plain", f"{sequence}\n", sequence)
            assert await anext(pieces) == b"%d\n" % sequence
        await writer.write_completion("live-plain", 20)
        assert [piece async for piece in pieces] == []


async def test_foreign_writer(http: httpx.AsyncClient, service_redis: Redis) -> None:
    """Entries that any program adds, publishing nothing and knowing only text, arrive when they are added."""
    key = "agent-stream:foreign"
    await service_redis.xadd(key, {"text": "first"})
    async with open_events(http, "foreign") as stream:
        assert (await stream.next()).data == "first"
        # Many: a reader that only looks now and then takes longer for all of them than a test may.
        for number in range(20):
            entry = await service_redis.xadd(key, {"text": str(number), "sequence": "odd", "more": b"\xff"})
            event = await stream.next()
            assert (event.data, event.id.encode()) == (str(number), entry)
        await service_redis.xadd(key, {"done": "true"})
        assert [event.event for event in await stream.rest()] == ["done"]


async def test_foreign_bytes(http: httpx.AsyncClient, service_redis: Redis) -> None:
    """Bytes of a foreign writer that are no UTF-8, or no text at all, break nothing."""
    key = "agent-stream:foreign-bytes"
    await service_redis.xadd(key, {"text": b"a\xffb"})
    await service_redis.xadd(key, {b"\xff\xfe": b"\x00"})
    await service_redis.xadd(key, {"type": "x\nevent: done", "data": "{broken"})
    await service_redis.xadd(key, {"text": "", "done": "true"})
    events = [
        event for event in await read_events(http, "foreign-bytes", {"events": "all"}) if event.event != "run"
    ]
    assert [event.event for event in events] == ["message", "message", "xeventdone", "done"]
    assert text_of(events) == await read_plain(http, "foreign-bytes") == "a\ufffdb"


async def test_not_a_stream(http: httpx.AsyncClient, service_redis: Redis) -> None:
    """A key of another kind in the stream's place gives an error without Redis's own words."""
    await service_redis.set("agent-stream:a-string", "x", ex=60)
    response = await http.get(stream_path("a-string"))
    assert response.status_code == 409
    assert "WRONGTYPE" not in response.text


@asynccontextmanager
async def many_readers(http: httpx.AsyncClient, path: str, count: int) -> AsyncIterator[list[httpx.Response]]:
    """Many open connections to one path, all answered."""
    async with AsyncExitStack() as stack:
        opened = [stack.enter_async_context(http.stream("GET", path)) for _ in range(count)]
        yield [await each for each in opened]


async def test_many_readers_of_one_stream(
    http: httpx.AsyncClient, writer: RedisStreamResponseHandler
) -> None:
    """Fifty readers of one stream, live, are given the same bytes as one who reads it later."""
    await writer.write_chunk("many", "first", 0)
    async with many_readers(http, stream_path("many"), READERS) as responses:
        assert all(response.status_code == 200 for response in responses)
        reading = [asyncio.create_task(response.aread()) for response in responses]
        for sequence in range(1, 200):
            await writer.write_chunk("many", f"{sequence} 🗼\n", sequence)
        await writer.write_completion("many", 200)
        received = set(await asyncio.gather(*reading))
    replayed = (await http.get(stream_path("many"))).content
    assert received == {replayed}
    assert replayed.count(b"event: message") == 200


async def test_many_runs_at_once(http: httpx.AsyncClient) -> None:
    """Fifty runs at once all complete, each with its own answer and nothing of another's."""
    towns = [f"{first}{second}ville" for first in "BCDFGHKLMP" for second in ("a", "e", "i", "o", "u")]
    assert len(towns) == RUNS
    started = await asyncio.gather(*(start_run(http, f"Plan a 3-day trip to {town}") for town in towns))
    streams = await asyncio.gather(*(read_events(http, run["conversation_id"]) for run in started))
    for town, run, events in zip(towns, started, streams, strict=True):
        text = text_of(events)
        assert f"3 days in {town}" in text
        assert set(re.findall(r"\b[A-Z][aeiou]ville\b", text)) == {town}
        assert [event.event for event in events].count("done") == 1
        assert events[-1].event == "done"
        assert (await http.get(run["links"]["status"])).json()["response"] == text


async def leave(service: Service, conversations: list[str], *, abruptly: bool) -> None:
    """Read something of each conversation, then be gone."""
    for conversation in conversations:
        with socket.create_connection(service.address, timeout=PATIENCE) as client:
            client.sendall(f"GET {stream_path(conversation)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = b""
            while b"event: message" not in received:
                received += await asyncio.to_thread(client.recv, 65_536)
            if abruptly:
                # Closing sends a reset, as a machine does that has lost its memory of the connection.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("abruptly", [False, True])
async def test_who_leaves_leaves_nothing_behind(
    service: Service,
    http: httpx.AsyncClient,
    writer: RedisStreamResponseHandler,
    service_redis: Redis,
    abruptly: bool,
) -> None:
    """After readers of unfinished streams have left, no subscription, blocking read or connection stays."""
    conversations = [f"left-{abruptly}-{number}" for number in range(40)]
    for conversation in conversations:
        await writer.write_chunk(conversation, "unfinished", 0)
    channels = [keys_of(conversation).channel for conversation in conversations]
    before = len(await service_redis.client_list())

    async def nothing_is_left() -> bool:
        subscribers = await service_redis.pubsub_numsub(*channels)
        blocked = (await service_redis.info("clients"))["blocked_clients"]
        clients = len(await service_redis.client_list())
        # The service's pool may have grown, to its bound: far below one connection for each reader.
        grown = clients - before
        return not any(count for _, count in subscribers) and blocked == 0 and grown < POOL_SIZE

    for _ in range(2):
        await leave(service, conversations, abruptly=abruptly)
    await eventually(nothing_is_left, "no trace of the readers in Redis")
    assert (await finished_run(http, "Tell me a joke"))["response"]
