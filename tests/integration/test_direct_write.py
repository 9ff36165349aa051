"""Writing to a client past the server's own send: what it brings, and when it is refused."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from hosting.http_protocol import CLIENT_LINE
from tests.integration.wire import answers_of, exchange, served
from tests.service import PATIENCE

HEAD: Final = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
LAST: Final = {"type": "http.response.body", "body": b"", "more_body": False}
GET: Final = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def direct_write_of(scope: Any) -> Any:
    """What the protocol offers."""
    return scope["extensions"][CLIENT_LINE].write


async def test_direct_writes_are_what_send_writes() -> None:
    """Pieces arrive byte for byte as by ``send``, in order with those that ``send`` sent."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        write, is_direct = direct_write_of(scope), scope["path"] == "/direct"
        assert not write(b"before the head")
        await send(HEAD)
        for number in range(5):
            piece = b"%d" % number * 20
            if is_direct:
                assert write(piece)
            else:
                await send({**LAST, "body": piece, "more_body": True})
            await send({**LAST, "body": b"sent", "more_body": True})
        await send(LAST)
        assert not write(b"after the end")

    async with served(app) as address:
        by_send, directly = [
            (await asyncio.to_thread(exchange, address, request, ends=False)).partition(b"\r\n\r\n")[2]
            for request in (GET, GET.replace(b"GET / ", b"GET /direct "))
        ]
    assert by_send == directly
    assert b"14\r\n" + b"4" * 20 in directly


async def test_a_client_that_reads_nothing_is_not_written_to_for_ever() -> None:
    """Once the server would wait for the client, nothing is taken past it; what was taken arrives."""
    taken = 0
    refused = asyncio.Event()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        nonlocal taken
        await send(HEAD)
        write = direct_write_of(scope)
        while write(b"~" * 65_536):
            taken += 1
            await asyncio.sleep(0)
        refused.set()
        await send({**LAST, "body": b"end"})

    async with served(app) as address:
        reader, writer = await asyncio.open_connection(*address, limit=1_024)
        writer.write(GET)
        async with asyncio.timeout(PATIENCE):
            await refused.wait()
            body = await reader.read()
        writer.close()
    assert body.count(b"~") == taken * 65_536
    assert body.endswith(b"end\r\n0\r\n\r\n")


async def test_a_client_that_is_gone_is_not_written_to() -> None:
    """After the connection is lost nothing is taken."""
    answers: list[bool] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        while (await receive())["type"] != "http.disconnect":
            pass
        answers.append(direct_write_of(scope)(b"x"))
        done.set()

    async with served(app) as address:
        _, writer = await asyncio.open_connection(*address)
        writer.write(GET)
        await writer.drain()
        writer.close()
        async with asyncio.timeout(PATIENCE):
            await done.wait()
    assert answers == [False]


@pytest.mark.parametrize("head", [GET.replace(b"GET", b"HEAD"), GET.replace(b"GET / ", b"GET /sized ")])
async def test_bodies_that_are_not_chunked_are_not_written_past_send(head: bytes) -> None:
    """Where ``send`` would not write the piece as a chunk, it is not taken."""
    answers: list[bool] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        is_sized = scope["path"] == "/sized"
        await send({**HEAD, "headers": [(b"content-length", b"3")] if is_sized else []})
        answers.append(direct_write_of(scope)(b"x"))
        await send({**LAST, "body": b"abc" if is_sized else b""})

    async with served(app) as address:
        received = await asyncio.to_thread(exchange, address, head, ends=False)
    assert answers == [False]
    assert answers_of(received) == [200]


async def test_who_leaves_is_noticed_without_a_task() -> None:
    """A response hears that its client has left, at once if it has already, and not if it asks no more."""
    left: list[str] = []
    was_left = asyncio.Event()

    def leave(said: str) -> None:
        left.append(said)
        was_left.set()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        line = scope["extensions"][CLIENT_LINE]
        await send(HEAD)
        line.when_left(lambda: leave("unwanted"))
        line.when_left(None)
        line.when_left(lambda: leave("first"))
        async with asyncio.timeout(PATIENCE):
            await was_left.wait()
        line.when_left(lambda: leave("again"))
        line.when_left(None)
        was_left.clear()
        leave("done")

    async with served(app) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert not left
        writer.close()
        async with asyncio.timeout(PATIENCE):
            while "done" not in left:
                await was_left.wait()
                await asyncio.sleep(0)
    assert left == ["first", "again", "done"]
