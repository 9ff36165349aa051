"""What one process takes on, and for how long, against real services: docs/protocol.md, 5.9."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.sse import ServerSentEvent
from tests.service import (
    FAST,
    PATIENCE,
    SLOW,
    Service,
    connect_http,
    eventually,
    open_events,
    running_service,
    start_run,
    stream_path,
    text_of,
)

RUN: Final = "/api/agents/TravelPlanner/run"
#: An EventSource that comes back has this.
RECONNECT: Final = {"last-event-id": "0-0"}


def client_at(address: str) -> dict[str, str]:
    """What a proxy in front of the service says of a client."""
    return {"x-forwarded-for": address}


@pytest.fixture(scope="module")
def narrow(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with room for three streams, two of each client, and two runs. Its agents are slow."""
    settings = {"MAX_STREAMS": "3", "MAX_STREAMS_PER_CLIENT": "2", "MAX_RUNS": "2"}
    settings |= {"STREAM_APPEAR_TIMEOUT_SECONDS": "0.1"}
    settings |= {"TRUSTED_PROXIES": "127.0.0.0/8", "DEMO_MODEL_WORDS_PER_SECOND": SLOW}
    with running_service(tmp_path_factory.mktemp("narrow") / "data", program=program, **settings) as running:
        yield running


@pytest.fixture
async def client(narrow: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with connect_http(narrow) as connected:
        yield connected


@pytest.fixture
async def conversation(narrow: Service) -> AsyncIterator[str]:
    """A conversation that goes on for as long as a test reads it."""
    async with RedisStreamResponseHandler(connect(narrow.redis_url)) as writer:
        await writer.write_chunk("endless", "so far", 0)
        yield "endless"


async def open_as_soon_as_possible(
    stack: AsyncExitStack, client: httpx.AsyncClient, conversation: str, *addresses: str
) -> None:
    """Open a stream from each address; others may be on their way out still."""
    for address in addresses:

        async def is_open(address: str = address) -> bool:
            asked = client.stream("GET", stream_path(conversation), headers=client_at(address))
            async with AsyncExitStack() as attempt:
                response = await attempt.enter_async_context(asked)
                if response.status_code == 200:
                    stack.push_async_exit(attempt.pop_all())
                return response.status_code == 200

        await eventually(is_open, f"there is room for {address}")


async def assert_all_places_are_free(client: httpx.AsyncClient, conversation: str) -> None:
    async with AsyncExitStack() as stack:
        await open_as_soon_as_possible(stack, client, conversation, "10.9.9.1", "10.9.9.2", "10.9.9.3")


@pytest.mark.standalone
async def test_too_many_streams(client: httpx.AsyncClient, conversation: str) -> None:
    """A client over its number gets 429, one over that of all 503; a place that was left is free again."""
    async with AsyncExitStack() as stack:
        await open_as_soon_as_possible(stack, client, conversation, "10.0.0.1", "10.0.0.1", "10.0.0.2")
        for address, status in (("10.0.0.1", 429), ("10.0.0.3", 503)):
            refused = await client.get(stream_path(conversation), headers=client_at(address))
            assert (refused.status_code, refused.json()["code"]) == (status, "too_many_streams")
            assert int(refused.headers["retry-after"]) > 0
            # Nor is there room for its connection.
            assert refused.headers["connection"] == "close"
    await assert_all_places_are_free(client, conversation)


@pytest.mark.standalone
async def test_an_event_source_that_finds_no_room(client: httpx.AsyncClient, conversation: str) -> None:
    """A reconnect is told to come again, by a 200: any other status would stop the browser for good."""
    async with AsyncExitStack() as stack:
        await open_as_soon_as_possible(stack, client, conversation, "10.0.0.1", "10.0.0.1")
        back = await client.get(stream_path(conversation), headers={**client_at("10.0.0.1"), **RECONNECT})
        assert (back.status_code, back.content) == (200, b"retry: 5000\n\n")
        assert back.headers["content-type"].startswith("text/event-stream")
        plain = {**client_at("10.0.0.1"), **RECONNECT, "accept": "text/plain"}
        assert (await client.get(stream_path(conversation), headers=plain)).status_code == 429


async def test_what_does_not_stream_takes_no_place(client: httpx.AsyncClient, conversation: str) -> None:
    """HEAD requests, refused ones and those with nothing more leave no place taken."""
    await assert_all_places_are_free(client, conversation)
    for _ in range(4):
        await client.head(stream_path(conversation))
        await client.get(stream_path(conversation), params={"cursor": "x"})
        await client.get(stream_path("no-such-conversation"))
    await assert_all_places_are_free(client, conversation)


async def test_clients_that_break_off_leave_their_place(
    narrow: Service, client: httpx.AsyncClient, conversation: str
) -> None:
    """Clients that reset their connection, before or after the first byte, leave their places."""
    request = f"GET {stream_path(conversation)} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    for waits in (True, False) * 4:

        async def broke_off(waits: bool = waits) -> bool:
            return await asyncio.to_thread(_break_off, narrow, request, waits=waits)

        await eventually(broke_off, "there was a place to leave")
    await assert_all_places_are_free(client, conversation)


def _break_off(service: Service, request: bytes, *, waits: bool) -> bool:
    """Ask, wait for the first byte or don't, and reset; whether it was a stream, as far as that is known."""
    with socket.create_connection(service.address, timeout=PATIENCE) as connection:
        connection.sendall(request)
        received = connection.recv(4_096) if waits else b"HTTP/1.1 200"
        # Closing it now resets it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return received.startswith(b"HTTP/1.1 200")


async def test_too_many_runs(client: httpx.AsyncClient) -> None:
    """Of a burst of requests as many runs begin as there is room for; one that ends makes room."""
    burst = [client.post(RUN, json={"message": "Plan a trip to Oslo"}) for _ in range(12)]
    answers = await asyncio.gather(*burst)
    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert len(accepted) == 2
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "too_many_runs")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert (await client.post(RUN, json={"message": "One more"})).status_code == 503
    await client.delete(accepted[0]["links"]["status"])

    async def is_room() -> bool:
        answer = await client.post(RUN, json={"message": "Plan a trip to Oslo"})
        if answer.status_code == 202:
            accepted.append(answer.json())
        return answer.status_code == 202

    await eventually(is_room, "the cancelled run has left its place")
    for run in accepted[1:]:
        await client.delete(run["links"]["status"])


async def read_by_reconnecting(
    client: httpx.AsyncClient, conversation: str
) -> tuple[list[ServerSentEvent], int]:
    """All events up to the end of the run as an ``EventSource`` gets them, and how many responses it took."""
    events: list[ServerSentEvent] = []
    responses = 0
    while not events or events[-1].event != "done":
        responses += 1
        headers = {"last-event-id": events[-1].id} if events else {}
        async with open_events(client, conversation, headers=headers) as stream:
            got = await stream.rest()
            if not got or got[-1].event != "done":
                assert stream.received.endswith(b"retry: 1000\n\n")
            events += got
    return events, responses


async def test_a_response_ends_after_its_time(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A response that lasts too long ends with retry, and who comes back loses and doubles nothing."""
    data_dir = tmp_path_factory.mktemp("brief") / "data"
    settings = {"STREAM_MAX_MINUTES": "0.01", "DEMO_MODEL_WORDS_PER_SECOND": "40"}
    with running_service(data_dir, program=program, **settings) as service:
        async with connect_http(service) as client:
            run = await start_run(client, "Hello")
            events, responses = await read_by_reconnecting(client, run["conversation_id"])
            report = (await client.get(run["links"]["status"])).json()
    assert responses > 1
    assert text_of(events) == report["response"]
    assert len({event.id for event in events}) == len(events)


async def test_a_silent_response_ends(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A stream without entries for too long ends with retry, and as plain text with a note."""
    data_dir = tmp_path_factory.mktemp("silent") / "data"
    with running_service(
        data_dir, program=program, STREAM_IDLE_MINUTES="0.01", DEMO_MODEL_WORDS_PER_SECOND=FAST
    ) as service:
        async with (
            connect_http(service) as client,
            RedisStreamResponseHandler(connect(service.redis_url)) as writer,
        ):
            await writer.write_chunk("silent", "so far", 0)
            plain, (events, received) = await asyncio.gather(
                client.get(stream_path("silent"), headers={"accept": "text/plain"}),
                _events_and_bytes(client, "silent"),
            )
    assert [event.data for event in events] == ["so far"]
    assert received.endswith(b"retry: 1000\n\n")
    assert plain.text.startswith("so far\n[The connection ended before the answer did")


async def _events_and_bytes(client: httpx.AsyncClient, conversation: str) -> tuple[list[Any], bytes]:
    async with open_events(client, conversation) as stream:
        return await stream.rest(), bytes(stream.received)


@pytest.mark.standalone
async def test_forwarded_addresses_count_only_from_proxies(
    program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Unless a proxy is trusted, a client can't claim another address to get past its limit."""
    data_dir = tmp_path_factory.mktemp("untrusting") / "data"
    with running_service(data_dir, program=program, MAX_STREAMS_PER_CLIENT="1") as service:
        async with (
            connect_http(service) as client,
            RedisStreamResponseHandler(connect(service.redis_url)) as writer,
        ):
            await writer.write_chunk("c", "so far", 0)
            async with open_events(client, "c", headers=client_at("10.0.0.1")) as stream:
                await stream.next()
                refused = await client.get(stream_path("c"), headers=client_at("10.0.0.2"))
    assert refused.status_code == 429
