"""The published walk-through to the letter: curl, redis-cli, the Python reader.

And the published reader's logic: a program that knows only text, done and error reads our streams.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.sse import ServerSentEvent, ServerSentEventDecoder
from tests.service import PATIENCE, ROOT, Service, finished_run, open_events, read_plain, start_run

PROMPT: Final = "Plan a 3-day trip to Tokyo"
#: The client programs as published, but for what they are told on the command line.
PUBLISHED: Final = """
import asyncio, sys
from datetime import timedelta
import redis.asyncio as aioredis
from redis_stream_response_handler import RedisStreamResponseHandler

async def read_agent_response(conversation_id: str):
    redis_client = aioredis.from_url(sys.argv[1])
    handler = RedisStreamResponseHandler(
        redis_client=redis_client,
        stream_ttl=timedelta(minutes=10)
    )

    async for chunk in handler.read_stream(conversation_id):
        if chunk.is_done:
            print("\\n[Agent completed]")
            break
        if chunk.text:
            print(chunk.text, end="", flush=True)

asyncio.run(read_agent_response(sys.argv[2]))
"""
WITH_CURSOR: Final = """
import asyncio, sys
from datetime import timedelta
import redis.asyncio as aioredis
from redis_stream_response_handler import RedisStreamResponseHandler

async def main(url, conversation_id, cursor=None):
    redis_client = aioredis.from_url(url, encoding="utf-8", decode_responses=DECODE)
    stream_ttl = timedelta(minutes=10)
    async with RedisStreamResponseHandler(redis_client=redis_client, stream_ttl=stream_ttl) as handler:
        async for chunk in handler.read_stream(conversation_id, cursor):
            if chunk.error:
                print(f"[Error: {chunk.error}]", end="")
                break
            if chunk.is_done:
                break
            if chunk.text:
                print(chunk.text, end="", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def curl() -> str:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("curl is not installed")
    return found


@pytest.fixture
def redis_cli(service: Service) -> list[str]:
    found = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if found is None:
        pytest.skip("redis-cli is not installed")
    return [found, "-p", str(service.redis_port)]


def output(*command: str) -> str:
    """What a command prints."""
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    return done.stdout.decode()


def start_by_curl(curl: str, service: Service) -> dict[str, Any]:
    """The walk-through's first step."""
    url = f"{service.url}/api/agents/TravelPlanner/run"
    answer = output(
        *(curl, "-s", "-w", "\n%{http_code}", "-X", "POST", url, "-H", "Content-Type: text/plain"),
        *("-d", PROMPT),
    )
    body, _, status = answer.rpartition("\n")
    assert status == "202"
    return dict(json.loads(body))


def stream_by_curl(curl: str, service: Service, conversation: str, accept: str, query: str = "") -> str:
    """The walk-through's second step."""
    url = f"{service.url}/api/agent/stream/{conversation}{query}"
    return output(curl, "-s", "-N", url, "-H", f"Accept: {accept}")


def decoded(stream: str) -> list[ServerSentEvent]:
    return ServerSentEventDecoder().feed(stream.encode())


def test_start(curl: str, service: Service) -> None:
    """Step 1, curl -X POST with a text message: 202 and JSON with the published fields."""
    body = start_by_curl(curl, service)
    assert body["status"] == "accepted"
    assert body["response"] == "Agent request accepted"
    assert body["message"] == PROMPT
    assert body["conversation_id"]
    assert body["correlation_id"]


def test_stream_and_resume(curl: str, service: Service) -> None:
    """Steps 2 and 3, curl -N and then with a cursor: id, event, data; the rest after the cursor."""
    conversation = start_by_curl(curl, service)["conversation_id"]
    whole = decoded(stream_by_curl(curl, service, conversation, "text/event-stream"))
    assert {event.event for event in whole[:-1]} == {"message"}
    assert (whole[-1].event, whole[-1].data) == ("done", "[DONE]")
    middle = len(whole) // 2
    query = f"?cursor={whole[middle].id}"
    rest = decoded(stream_by_curl(curl, service, conversation, "text/event-stream", query))
    assert rest == whole[middle + 1 :]


def test_plain_text(curl: str, service: Service) -> None:
    """Test 2 of the walk-through, Accept: text/plain: the itinerary as bare text."""
    conversation = start_by_curl(curl, service)["conversation_id"]
    text = stream_by_curl(curl, service, conversation, "text/plain")
    assert text.startswith("# 🗼 3 days in Tokyo\n")
    events = decoded(stream_by_curl(curl, service, conversation, "text/event-stream"))
    assert text == "".join(event.data for event in events if event.event == "message")


async def test_curl_sees_each_chunk(curl: str, service: Service, writer: RedisStreamResponseHandler) -> None:
    """With curl -N each chunk is on the terminal before the next one is written."""
    await writer.write_chunk("curl-live", "0\n", 0)
    url = f"{service.url}/api/agent/stream/curl-live"
    async with program(curl, "-s", "-N", url, "-H", "Accept: text/plain") as printed:
        assert await printed.readline() == b"0\n"
        for sequence in range(1, 10):
            await writer.write_chunk("curl-live", f"{sequence}\n", sequence)
            assert await printed.readline() == b"%d\n" % sequence
        await writer.write_completion("curl-live", 10)
        assert await printed.read() == b""


def test_status(curl: str, service: Service) -> None:
    """The status GET of the walk-through says how the run stands."""
    conversation = start_by_curl(curl, service)["conversation_id"]
    stream_by_curl(curl, service, conversation, "text/plain")
    report = json.loads(output(curl, "-s", f"{service.url}/api/agents/TravelPlanner/run/{conversation}"))
    assert report["status"] == "Completed"


def test_edge_cases(curl: str, service: Service) -> None:
    """The walk-through's edge cases: an empty prompt is a 400, an unknown conversation a 404, both soon."""
    code = ("-s", "-o", "/dev/null", "-w", "%{http_code}")
    run = f"{service.url}/api/agents/TravelPlanner/run"
    assert output(curl, *code, "-X", "POST", run, "-H", "Content-Type: text/plain") == "400"
    stream = f"{service.url}/api/agent/stream/non-existent-conversation-id-12345"
    assert output(curl, *code, stream, "-H", "Accept: text/event-stream") == "404"
    assert output(curl, *code, f"{service.url}/api/health") == "200"


async def test_redis_cli(redis_cli: list[str], http: httpx.AsyncClient) -> None:
    """XRANGE shows readable fields in their published order; XLEN, XREAD and TTL work as published."""
    answer = await finished_run(http)
    key = f"agent-stream:{answer['conversation_id']}"
    entries = json.loads(output(*redis_cli, "-3", "--json", "XRANGE", key, "-", "+"))
    fields = [dict(zip(pairs[::2], pairs[1::2], strict=True)) for _, pairs in entries]
    assert all(pairs[0] == "text" and pairs[2] == "sequence" for _, pairs in entries)
    assert "".join(each["text"] for each in fields) == answer["response"]
    assert [each["sequence"] for each in fields] == [str(number) for number in range(len(fields))]
    assert all(each["timestamp"].isdigit() and len(each["timestamp"]) == 13 for each in fields)
    assert {each["run"] for each in fields} == {answer["correlation_id"]}
    assert [each["done"] for each in fields if "done" in each] == ["true"]
    assert (fields[-1]["text"], fields[-1]["done"], fields[-1]["status"]) == ("", "true", "completed")
    assert output(*redis_cli, "XLEN", key).strip() == str(len(entries))
    read = json.loads(output(*redis_cli, "-3", "--json", "XREAD", "STREAMS", key, "0-0"))
    assert read == {key: entries}
    assert 0 < int(output(*redis_cli, "TTL", key)) <= 600


async def test_every_key_expires(http: httpx.AsyncClient, service_redis: Redis) -> None:
    """After runs, finished or not, every key of theirs in Redis has a time to live."""
    answer = await finished_run(http, "Tell me a joke")
    keys = [key async for key in service_redis.scan_iter(match=f"*{answer['conversation_id']}*")]
    assert len(keys) >= 2
    for key in keys:
        # What the agent remembers is kept for longer than its stream.
        longest = 30 * 24 * 3600 if b":agent:" in key else 600
        assert 0 < await service_redis.ttl(key) <= longest, key


@asynccontextmanager
async def program(*command: str) -> AsyncIterator[asyncio.StreamReader]:
    """What a program prints; it is to end by itself with status 0 and to complain of nothing."""
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            yield process.stdout
            complaints = (await process.stderr.read()).decode()
            assert (await process.wait(), complaints) == (0, "")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def python(source: str, *arguments: str) -> AbstractAsyncContextManager[asyncio.StreamReader]:
    """Run a client program in Python."""
    return program(sys.executable, "-c", source, *arguments)


async def test_published_python_reader(service: Service, http: httpx.AsyncClient) -> None:
    """The published Python program, unchanged, prints a run's answer and that the agent completed."""
    answer = await finished_run(http)
    async with python(PUBLISHED, service.redis_url, answer["conversation_id"]) as printed:
        assert (await printed.read()).decode() == answer["response"] + "\n[Agent completed]\n"


async def test_published_python_reader_live(service: Service, writer: RedisStreamResponseHandler) -> None:
    """The published program may be started before its conversation, and prints chunks as they come."""
    async with python(PUBLISHED, service.redis_url, "python-live") as printed:
        for sequence in range(5):
            await writer.write_chunk("python-live", f"{sequence}\n", sequence)
            assert await printed.readline() == b"%d\n" % sequence
        await writer.write_completion("python-live", 5)
        assert (await printed.read()).decode() == "\n[Agent completed]\n"


@pytest.mark.parametrize("decode", ["False", "True"])
async def test_published_python_reader_with_cursor(
    service: Service, http: httpx.AsyncClient, decode: str
) -> None:
    """The published loop with a cursor gives what comes after it, with decode_responses on or off."""
    answer = await finished_run(http)
    conversation, source = answer["conversation_id"], WITH_CURSOR.replace("DECODE", decode)
    async with python(source, service.redis_url, conversation) as printed:
        assert (await printed.read()).decode() == answer["response"]
    async with open_events(http, conversation) as stream:
        cursor = [await stream.next() for _ in range(100)][-1].id
    async with python(source, service.redis_url, conversation, cursor) as printed:
        assert (await printed.read()).decode() == await read_plain(http, conversation, {"cursor": cursor})


async def test_published_python_reader_of_an_error(service: Service, service_redis: Redis) -> None:
    """The published loop is told of a failed run by chunk.error."""
    await service_redis.xadd("agent-stream:foreign-python", {"text": "so far "})
    await service_redis.xadd("agent-stream:foreign-python", {"text": "", "error": "it broke"})
    source = WITH_CURSOR.replace("DECODE", "False")
    async with python(source, service.redis_url, "foreign-python") as printed:
        assert (await printed.read()).decode() == "so far [Error: it broke]"


async def plain_read(redis: Redis, conversation: str, cursor: str = "0-0") -> tuple[str, str, str]:
    """What a reader makes of a stream that knows XREAD, text, done and error: the text, its end, its cursor.

    As the published reader: an error or done ends it, entries without text are skipped.
    """
    texts: list[str] = []
    while True:
        reply: Any = await redis.xread({f"agent-stream:{conversation}": cursor}, count=100, block=4_000)
        assert reply, "nothing came within 4 s"
        [(_, entries)] = reply
        for entry_id, fields in entries:
            cursor = entry_id.decode()
            if fields.get(b"error"):
                return "".join(texts), f"error: {fields[b'error'].decode()}", cursor
            if fields.get(b"done") == b"true":
                return "".join(texts), "done", cursor
            if fields.get(b"text"):
                texts.append(fields[b"text"].decode())


@pytest.fixture
async def plain_redis(service: Service) -> AsyncIterator[Redis]:
    """The client of a program that knows nothing of ours, with the replies of RESP2."""
    async with Redis.from_url(service.redis_url, protocol=2) as client:
        yield client


async def test_reader_that_knows_only_the_published_fields(
    http: httpx.AsyncClient, plain_redis: Redis
) -> None:
    """A reader that knows only text, done and error reads our runs, turn by turn."""
    first = await start_run(http)
    conversation = first["conversation_id"]
    text, end, cursor = await plain_read(plain_redis, conversation)
    assert (text, end) == (await read_plain(http, conversation), "done")
    second = await finished_run(http, "make it 5 days", conversation_id=conversation)
    assert (await plain_read(plain_redis, conversation, cursor))[:2] == (second["response"], "done")


async def test_plain_reader_of_a_cancelled_run(slow_service: Service, slow_http: httpx.AsyncClient) -> None:
    """To that reader a cancelled run is done."""
    run = await start_run(slow_http)
    conversation = run["conversation_id"]
    async with open_events(slow_http, conversation) as stream:
        await stream.next()
        await slow_http.delete(f"/api/agents/TravelPlanner/run/{conversation}")
        await stream.rest()
    async with Redis.from_url(slow_service.redis_url, protocol=2) as redis:
        text, end, _ = await plain_read(redis, conversation)
    assert (text, end) == (await read_plain(slow_http, conversation), "done")
