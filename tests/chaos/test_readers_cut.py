"""Readers that are cut, slow, or vanish: docs/protocol.md, sections 4 and 6."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from soak.client_readers import WAYS, running_clients
from soak.counts import Counts
from soak.reader import Habits, Reader, RunReader
from streaming.entries import NewEntry, RunStatus
from streaming.identifiers import keys_of
from streaming.sse import ServerSentEvent, ServerSentEventDecoder
from tests.raw_http import RawResponse
from tests.service import (
    Service,
    eventually,
    finished_run,
    running_service,
    start_run,
    stream_path,
    text_of,
)

#: Readers of one run at once; the longer form has as many as the name says.
READERS: Final = 150
MANY_READERS: Final = 1_000
#: For so many raw readers there is one with each client in each of its ways.
CLIENT_SHARE: Final = 50
#: A large answer: more than all buffers on the way hold.
CHUNK: Final = "x" * 1_023 + "\n"
CHUNKS: Final = 10_000


def events_of(body: bytes) -> list[ServerSentEvent]:
    """The complete events of a body."""
    return ServerSentEventDecoder().feed(body)


async def test_cut_at_every_byte(service: Service, http: httpx.AsyncClient) -> None:
    """Cut after any byte of the response and resumed from the last whole event, each event comes once."""
    run = await finished_run(http, "Tell me a joke")
    path = stream_path(run["conversation_id"])
    whole = RawResponse(service, path).rest()
    expected = events_of(whole)
    assert text_of(expected) == run["response"]

    def cut_and_resume(size: int) -> None:
        cut = RawResponse(service, path)
        events = events_of(cut.read(size))
        cut.close()
        headers = {"last-event-id": events[-1].id} if events else {}
        resumed = RawResponse(service, path, headers)
        events += events_of(resumed.rest())
        assert events == expected, f"cut after byte {size}"

    def cut_everywhere() -> None:
        for size in range(len(whole) + 1):
            cut_and_resume(size)

    await asyncio.to_thread(cut_everywhere)


async def test_long_answer_cut_at_every_byte(service: Service, http: httpx.AsyncClient) -> None:
    """The same for a long answer with tool calls: all cuts between two events resume alike."""
    run = await finished_run(http, "Plan a 2-day trip to Kyoto")
    path = f"{stream_path(run['conversation_id'])}?events=all"
    whole = await asyncio.to_thread(lambda: RawResponse(service, path).rest())
    expected = events_of(whole)
    decoder, received = ServerSentEventDecoder(), list[ServerSentEvent]()
    cursors = {0: ""}
    for place in range(len(whole)):
        received += decoder.feed(whole[place : place + 1])
        cursors.setdefault(len(received), received[-1].id if received else "")
    assert received == expected

    def resume_from_everywhere() -> None:
        for count, cursor in cursors.items():
            resumed = RawResponse(service, path, {"last-event-id": cursor} if cursor else {})
            assert events_of(resumed.rest()) == expected[count:]

    await asyncio.to_thread(resume_from_everywhere)


async def read_cut_at_random(service: Service, readers: int) -> None:
    counts, chance = Counts(), random.Random(readers)
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=service.url, limits=limits, timeout=60, trust_env=False) as http,
        running_clients(service.address, chance, cut_after=[2_000, 20_000], haste=20) as clients,
    ):
        run = await start_run(http, "Plan a 1-day trip to Oslo")
        everyone: list[RunReader] = [
            Reader(http, run, Habits(cut_after=2_000), random.Random(chance.random()), counts)
            for _ in range(readers)
        ]
        everyone += clients.readers(run, WAYS * (readers // CLIENT_SHARE), counts)
        readings = await asyncio.gather(*(reader.read() for reader in everyone))
        status = (await http.get(run["links"]["status"])).json()
    assert status["status"] == "Completed"
    assert {reading.text for reading in readings} == {status["response"]}
    assert {reading.end for reading in readings} == {"done"}
    assert not counts.details
    assert counts.reconnects.total() > readers


async def test_many_readers_resumed_while_the_run_writes(tmp_path: Path) -> None:
    """Readers that are cut at random moments of a live run all end up with exactly the answer."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="60") as service:
        await read_cut_at_random(service, READERS)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_thousand_readers_resumed_while_the_run_writes(tmp_path: Path) -> None:
    """The same for a thousand readers at once."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="15") as service:
        await read_cut_at_random(service, MANY_READERS)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux-only: reads /proc")
async def test_slow_readers_beside_fast_ones(service: Service, writer: RedisStreamResponseHandler) -> None:
    """Readers that hardly read a 10 MB answer cost little memory, hold nobody back, and lose nothing."""
    attempt = await writer.begin_run("large", "r", agent="TravelPlanner", owner="test")
    for first in range(0, CHUNKS, 500):
        entries = [NewEntry(1, text=f"{number:06}{CHUNK}") for number in range(first, first + 500)]
        await writer.runs.append(attempt, first, entries)
    await writer.runs.append(attempt, CHUNKS, [NewEntry(1, status=RunStatus.COMPLETED)])
    expected = "".join(f"{number:06}{CHUNK}" for number in range(CHUNKS)).encode()

    def open_slowly() -> list[RawResponse]:
        headers = {"accept": "text/plain"}
        return [RawResponse(service, stream_path("large"), headers, receive_buffer=4_096) for _ in range(20)]

    before = service.memory
    slow = await asyncio.to_thread(open_slowly)
    bodies = [await asyncio.to_thread(response.read, 1_000) for response in slow]
    fast = await asyncio.to_thread(RawResponse, service, stream_path("large"), {"accept": "text/plain"})
    assert await asyncio.to_thread(fast.rest) == expected
    # Twenty whole answers would be 200 MB.
    assert service.memory - before < 150 * 1_048_576
    rest = await asyncio.gather(*(asyncio.to_thread(response.rest) for response in slow[:3]))
    assert [body + more for body, more in zip(bodies, rest, strict=False)] == [expected] * 3
    for response in slow:
        response.close()
    await writer.runs.commands.redis.delete(
        *[key async for key in writer.runs.commands.redis.scan_iter(match="*large*")]
    )


def reset(response: RawResponse) -> None:
    """Break the connection off, as a host that has crashed and come back does."""
    response.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    response.close()


def close_half(response: RawResponse) -> None:
    """Say that nothing more will be sent."""
    response.socket.shutdown(socket.SHUT_WR)


#: A program that opens a stream and reads nothing more of it.
READ_NOTHING: Final = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(f"GET {sys.argv[3]} HTTP/1.0\\r\\n\\r\\n".encode())
connection.recv(1)
print("open", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("leave", [RawResponse.close, reset, close_half])
async def test_reader_that_vanishes_is_let_go(
    slow_service: Service, slow_http: httpx.AsyncClient, leave: Callable[[RawResponse], None]
) -> None:
    """Whichever way readers leave, nobody follows the stream for them any more, and the run goes on."""
    run = await start_run(slow_http)
    path = stream_path(run["conversation_id"])
    readers = [await asyncio.to_thread(RawResponse, slow_service, path) for _ in range(20)]
    async with Redis.from_url(slow_service.redis_url) as redis:
        await eventually(lambda: followers(redis, run, 1), "the stream is followed")
        for reader in readers:
            leave(reader)
        await eventually(lambda: followers(redis, run, 0), "the stream is no longer followed")
    for reader in readers:
        reader.close()
    status = await slow_http.get(run["links"]["status"])
    assert status.json()["status"] == "Running"
    await slow_http.delete(run["links"]["status"])


async def test_reader_whose_process_is_killed_is_let_go(
    slow_service: Service, slow_http: httpx.AsyncClient
) -> None:
    """A reader whose process ends without a word is let go as one that closes its connection."""
    run = await start_run(slow_http)
    host, port = slow_service.address
    command = [sys.executable, "-c", READ_NOTHING, host, str(port), stream_path(run["conversation_id"])]
    process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"open\n"
    async with Redis.from_url(slow_service.redis_url) as redis:
        await eventually(lambda: followers(redis, run, 1), "the stream is followed")
        os.kill(process.pid, 9)
        await asyncio.to_thread(process.wait)
        process.stdout.close()
        await eventually(lambda: followers(redis, run, 0), "the stream is no longer followed")
    await slow_http.delete(run["links"]["status"])


async def followers(redis: Redis, run: dict[str, str], count: int) -> bool:
    """Whether so many processes follow a run's stream."""
    channel = keys_of(run["conversation_id"]).channel
    return bool(await redis.pubsub_numsub(channel) == [(channel.encode(), count)])
