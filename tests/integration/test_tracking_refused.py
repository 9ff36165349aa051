"""Streams whose writers publish nothing, where Redis does not say what changes, or seems not to."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from streaming.reading import tracked_connection, tracked_reads
from tests.integration.foreign_streams import BOUND, are_tracking, reading, reads, until
from tests.redis_server import RedisServer

PASSWORD = "pass-word"


pytestmark = pytest.mark.usefixtures("no_look")


async def test_a_user_who_may_not_ask(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Where rules of access refuse it, streams are followed without being told of, and a log line says so."""
    rules = ("resetkeys", "~*", "resetchannels", "&*", "+@all", "-client|tracking")
    async with server.client() as redis:
        await redis.execute_command("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", *rules)  # type: ignore[no-untyped-call]
    caplog.set_level(logging.INFO)
    async with reading(server, f"redis://reader:{PASSWORD}@127.0.0.1:{server.port}/0") as readers:
        await readers.begin("c", "d")
        await until(lambda: not readers.is_told)
        await readers.add("c", "1")
        await readers.come({"c": "01", "d": "0"})
    told = [record.getMessage() for record in caplog.records if record.name == tracked_reads.__name__]
    assert told == ["streams of foreign writers are read without being told what changed: NoPermissionError"]


async def test_a_server_that_never_says_anything(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes the command and does nothing is found out, and streams are followed without it."""

    async def take(connection: AbstractConnection) -> None:
        await connection.send_command("HELLO", 3)
        await connection.read_response()

    monkeypatch.setattr(tracked_connection, "_ask", take)
    monkeypatch.setattr(tracked_connection, "GRACE", timedelta(milliseconds=100))
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(milliseconds=300))
    async with reading(server) as readers:
        await readers.begin("c")
        text = "0"
        async with asyncio.timeout(BOUND):
            while readers.is_told:
                text += "1"
                await readers.add("c", "1")
                # Found by the look at silent streams.
                await readers.come({"c": text})
        monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(hours=1))
        await readers.are_followed("c")
        await readers.add("c", "2")
        await readers.come({"c": text + "2"})


async def test_silence_is_no_sign_of_a_server_that_never_says_anything(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams to which nothing is added are looked at again and again, and Redis stays believed."""
    monkeypatch.setattr(tracked_connection, "GRACE", timedelta(0))
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(milliseconds=1))
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c", "d")
        await redis.config_resetstat()
        async with asyncio.timeout(BOUND):
            while await reads(redis) < 6:  # noqa: ASYNC110 - another process's doing sets no event here
                await asyncio.sleep(0.01)
        assert readers.is_told
        await readers.add("c", "1")
        await readers.come({"c": "01"})


async def test_a_proxy_that_closes_what_it_does_not_know(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each connection breaks as tracking is asked for, streams are followed without it."""

    async def ask(_connection: AbstractConnection) -> None:
        raise RedisConnectionError("Connection closed by server.")

    monkeypatch.setattr(tracked_connection, "_ask", ask)
    async with reading(server) as readers:
        await readers.begin("c")
        await until(lambda: not readers.is_told)
        await readers.are_followed("c")
        await readers.add("c", "1")
        await readers.come({"c": "01"})


async def test_a_server_that_refuses_is_asked_again(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server refuses at one time (while a script keeps it busy) it may grant later."""
    ask, answers = tracked_connection._ask, [ResponseError("BUSY Redis is busy running a script.")]

    async def ask_at_times(connection: AbstractConnection) -> None:
        if answers:
            raise answers.pop()
        await ask(connection)

    monkeypatch.setattr(tracked_connection, "_ask", ask_at_times)
    monkeypatch.setattr(tracked_reads, "ASKED_AGAIN_AFTER", timedelta(milliseconds=200))
    async with reading(server) as readers, server.client() as redis:
        await readers.begin("c")
        await until(lambda: not answers and readers.is_told)
        await readers.begin("d")
        await are_tracking(redis, 1)
        for conversation in ("c", "d"):
            await readers.add(conversation, "1")
        await readers.come({"c": "01", "d": "01"})
