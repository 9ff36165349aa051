"""Places of streams and runs: given back however a response ends, or does not even begin."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hosting.asgi import _Answer, _App
from hosting.deadlines import Deadlines
from streaming.access_settings import LimitSettings
from streaming.entries import RunStatus, StreamChunk
from streaming.errors import TooManyRuns, TooManyStreams, TooManyStreamsOfClient
from streaming.http.limits import (
    RECONNECT_MS,
    SPREAD_FROM,
    SPREAD_MS_MOST,
    CountedBody,
    Load,
    TimeLimit,
)
from streaming.http.messages import HttpResponse
from tests.service import PATIENCE

LIMITS: Final = LimitSettings(max_streams=3, max_streams_per_client=2, max_runs=2)
LONG: Final = timedelta(minutes=1)


async def pieces(*, fails: bool = False) -> AsyncGenerator[bytes, None]:
    yield b"piece"
    if fails:
        raise ValueError("failed")
    await asyncio.Event().wait()


async def short() -> AsyncGenerator[bytes, None]:
    yield b"piece"


def test_streams_are_limited_in_all_and_for_each_client() -> None:
    """A client gets so many places and no more, so do all together, and what is left is free again."""
    load = Load()
    first = load.take_stream("a", LIMITS)
    second = load.take_stream("a", LIMITS)
    with pytest.raises(TooManyStreamsOfClient):
        load.take_stream("a", LIMITS)
    third = load.take_stream("b", LIMITS)
    with pytest.raises(TooManyStreams) as caught:
        load.take_stream("c", LIMITS)
    assert (caught.value.http_status, TooManyStreamsOfClient.http_status) == (503, 429)
    for place in (first, second, third, first):
        place.give_back()
    assert (load.streams, dict(load._of_client)) == (0, {})


def test_many_readers_that_are_sent_away_come_back_one_after_the_other() -> None:
    """A hundred come back in a second; the more there are, the longer the time over which they come."""
    load = Load()
    load.streams = SPREAD_FROM
    assert load.reconnect_ms() == RECONNECT_MS
    load.streams = SPREAD_FROM + 5_000
    waits = [load.reconnect_ms() for _ in range(2_000)]
    assert RECONNECT_MS <= min(waits) < RECONNECT_MS + 500
    assert RECONNECT_MS + 4_500 < max(waits) <= RECONNECT_MS + 5_000
    load.streams = 1_000_000
    assert max(load.reconnect_ms() for _ in range(2_000)) <= RECONNECT_MS + SPREAD_MS_MOST


def test_clients_without_an_address_have_no_limit_of_their_own() -> None:
    """Where the host does not tell who the client is, all clients would share one limit: none counts."""
    load = Load()
    places = [load.take_stream("", LIMITS) for _ in range(3)]
    assert load.streams == len(places)


def test_a_burst_of_runs_does_not_pass_the_limit() -> None:
    """Runs on their way to being in progress count too, until they are, or fail."""
    load = Load()
    with load.run_starting(0, LIMITS), load.run_starting(0, LIMITS), pytest.raises(TooManyRuns):
        load.run_starting(0, LIMITS).__enter__()
    with pytest.raises(ValueError, match="failed"), load.run_starting(1, LIMITS):
        raise ValueError("failed")
    with load.run_starting(1, LIMITS):
        pass
    with pytest.raises(TooManyRuns):
        load.run_starting(2, LIMITS).__enter__()


async def read_to_its_end(body: CountedBody) -> None:
    assert [piece async for piece in body] == [b"piece"]


async def closed_before_its_first_piece(body: CountedBody) -> None:
    await body.aclose()


async def closed_in_the_middle(body: CountedBody) -> None:
    async with aclosing(body):
        await anext(body)


async def thrown_into(body: CountedBody) -> None:
    await anext(body)
    with pytest.raises(KeyError):
        await body.athrow(KeyError())


async def cancelled(body: CountedBody) -> None:
    await anext(body)
    reading = asyncio.ensure_future(anext(body))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])


async def forgotten(body: CountedBody) -> None:
    """The caller lets go of it, too."""


@pytest.mark.parametrize(
    ("made", "ending"),
    [
        (short, read_to_its_end),
        (pieces, closed_before_its_first_piece),
        (pieces, closed_in_the_middle),
        (pieces, thrown_into),
        (pieces, cancelled),
        (pieces, forgotten),
    ],
)
async def test_a_place_is_given_back(
    made: Callable[[], AsyncGenerator[bytes, None]], ending: Callable[[CountedBody], Any]
) -> None:
    """Whatever way a body ends, its place is free again; also one that nobody ever iterated."""
    load = Load()
    body = CountedBody(made(), load.take_stream("a", LIMITS))
    assert load.streams == 1
    await ending(body)
    del body
    gc.collect()
    assert (load.streams, dict(load._of_client)) == (0, {})


async def test_a_body_that_fails_gives_its_place_back() -> None:
    """A failure inside the pieces is passed on, and the place is free."""
    load = Load()
    body = CountedBody(pieces(fails=True), load.take_stream("a", LIMITS))
    with pytest.raises(ValueError, match="failed"):
        async with aclosing(body):
            [piece async for piece in body]
    assert load.streams == 0


async def stays() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def leaves() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def takes(_message: Any) -> None:
    """A client that takes what it is sent."""


async def takes_nothing(_message: Any) -> None:
    await asyncio.Event().wait()


async def is_gone(_message: Any) -> None:
    raise OSError


@pytest.mark.parametrize(
    ("method", "receive", "send", "longest"),
    [
        pytest.param("HEAD", stays, takes, LONG, id="a HEAD request"),
        pytest.param("GET", leaves, takes, LONG, id="gone before the first byte"),
        pytest.param("GET", stays, is_gone, LONG, id="an error at the first byte"),
        pytest.param("GET", stays, takes_nothing, timedelta(0), id="stuck for too long"),
        pytest.param("GET", leaves, takes_nothing, LONG, id="gone while stuck"),
    ],
)
async def test_the_standalone_host_gives_places_back(
    method: str, receive: Any, send: Any, longest: timedelta
) -> None:
    """However a client treats the response, the standalone host closes its pieces and so frees its place."""
    load = Load()
    body = CountedBody(pieces(), load.take_stream("a", LIMITS))
    answer = _Answer(HttpResponse(200, body=body), Deadlines(longest))

    async def handle(_request: Request) -> Response:
        return answer

    app = _App(routes=[Route("/", handle, methods=[method])])
    scope = {"type": "http", "method": method, "path": "/", "headers": [], "query_string": b""}
    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, send)
    # What is left of the response holds its body still: it was closed, not only forgotten.
    assert load.streams == 0


def chunk(*, is_last: bool = False) -> StreamChunk:
    status = RunStatus.COMPLETED if is_last else None
    return StreamChunk(entry_id="1-0", text="x", is_done=is_last, status=status)


async def test_a_response_lasts_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends after its longest time, or after so long without an entry; heartbeats are no entries."""
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 0.0)
    limit = TimeLimit(timedelta(seconds=100), timedelta(seconds=10))
    for now, batch, is_reached in (
        (9.0, [], False),
        (9.5, [chunk()], False),
        (19.0, [], False),
        (19.6, [], True),
        (99.0, [chunk()], False),
        (100.0, [chunk(), chunk(is_last=True)], False),
        (101.0, [chunk()], True),
    ):
        assert limit.is_reached(batch, now) is is_reached
