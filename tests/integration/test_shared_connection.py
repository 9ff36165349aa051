"""One connection that all callers share, against a real Redis that is broken in real ways."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming import shared_connection as module
from streaming.commands import Commands
from streaming.connections import connect
from streaming.shared_connection import SharedConnection
from streaming.wire import Tap, can_be_tapped
from tests.redis_server import RedisServer

#: Nothing here takes a tenth of it; a hang is to fail, not to last.
BOUND = 30.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """The loops of a worker and of the service."""
    with asyncio.Runner(loop_factory=request.param) as made:
        yield made


def sent(shared: SharedConnection, *commands: tuple[Any, ...]) -> list[asyncio.Future[Any]]:
    """Send without waiting."""
    replies: list[asyncio.Future[Any]] = []
    for command in commands:
        reply = asyncio.get_running_loop().create_future()
        replies.append(reply)
        shared.send(command, reply.set_result)
    return replies


def held(client: Redis) -> int:
    """Connections of the pool that somebody has."""
    return len(client.connection_pool._in_use_connections)


async def until_held(client: Redis, count: int) -> None:
    """Wait."""
    async with asyncio.timeout(BOUND):
        while held(client) != count:  # noqa: ASYNC110 - the pool sets no event
            await asyncio.sleep(0.01)


def test_replies_go_to_those_who_asked(runner: asyncio.Runner, server: RedisServer) -> None:
    """What many ask at the same time is answered in order, over one connection, refusals in their places."""

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client, calls_under_way=7)

            async def ask(number: int) -> None:
                assert await shared.ask([("ECHO", "a"), ("NONSENSE",), ("ECHO", number)]) == [
                    b"a",
                    RefusalLike(),
                    b"%d" % number,
                ]

            await asyncio.gather(*(ask(number) for number in range(500)))
            large = b"x" * 3_000_000
            assert await shared.ask([("SET", "large", large), ("GET", "large")]) == [b"OK", large]
            assert len(await client.client_list()) == 2

    runner.run(run())


class RefusalLike:
    """Equal to any error that Redis answered."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResponseError)


def test_what_is_asked_in_one_turn_leaves_together(
    runner: asyncio.Runner, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred calls of a turn are a few writes, the first at once, and no later ones wait for replies."""
    writes: list[int] = []
    write = Tap.write

    def counted(tap: Tap, packed: bytes) -> None:
        writes.append(packed.count(b"ECHO"))
        write(tap, packed)

    monkeypatch.setattr(Tap, "write", counted)

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client)
            await shared.ask([("ECHO", "connected")])
            writes.clear()
            first = sent(shared, *[("ECHO", "a")] * 100)
            assert writes == [8, 16, 32]
            await asyncio.sleep(0)
            assert writes == [8, 16, 32, 44]
            assert not first[-1].done()
            second = sent(shared, ("ECHO", "b"))
            await asyncio.sleep(0)
            assert writes == [8, 16, 32, 44, 1]
            assert not shared._waiting
            assert await asyncio.gather(*first, *second) == [b"a"] * 100 + [b"b"]

    runner.run(run())


def test_redis_is_not_given_more_than_so_much(runner: asyncio.Runner, server: RedisServer) -> None:
    """While a Redis that hangs answers nothing, what it was sent is bounded; then all is answered."""

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client, calls_under_way=10)
            await shared.ask([("ECHO", "connected")])
            server.signal(signal.SIGSTOP)
            replies = sent(shared, *[("ECHO", "a")] * 100)
            await asyncio.sleep(0)
            assert shared._waiting
            assert len(shared._under_way) == 10
            server.signal(signal.SIGCONT)
            assert await asyncio.gather(*replies) == [b"a"] * 100

    runner.run(run())


def test_an_idle_connection_goes_back_to_its_pool(
    runner: asyncio.Runner, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody keeps a connection that nobody needs, and the pool can use it: its own reading works again."""
    monkeypatch.setattr(module, "LOOK_INTERVAL", timedelta(milliseconds=20))

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client)
            for _ in range(3):
                assert await shared.ask([("ECHO", "a")]) == [b"a"]
                assert held(client) == 1
                await until_held(client, 0)
                assert await client.echo("b") == b"b"
            assert len(await client.client_list()) == 1

    runner.run(run())


def test_a_busy_connection_is_seen_by_its_pool_now_and_then(
    runner: asyncio.Runner, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy it is, a connection is handed back after a while; nothing is lost or out of order."""
    monkeypatch.setattr(module, "LOOK_INTERVAL", timedelta(milliseconds=5))
    monkeypatch.setattr(module, "HELD_AT_MOST", timedelta(milliseconds=20))

    async def run() -> None:
        async with connect(server.url) as client:
            shared, pool = SharedConnection(client, calls_under_way=5), client.connection_pool
            released, release = 0, pool.release

            async def counted(connection: Any) -> None:
                nonlocal released
                released += 1
                await release(connection)

            monkeypatch.setattr(pool, "release", counted)
            replies: list[asyncio.Future[Any]] = []
            async with asyncio.timeout(BOUND):
                while released < 5:
                    replies += sent(shared, *[("INCR", "n")] * 20)
                    await asyncio.sleep(0)
            assert await asyncio.gather(*replies) == list(range(1, len(replies) + 1))
            # It, and the one that asks this.
            assert len(await client.client_list()) <= 2

    runner.run(run())


def test_a_lost_connection_is_told_and_replaced(runner: asyncio.Runner, server: RedisServer) -> None:
    """Who waits for a reply is told that it is lost, at once; what was not sent goes over the next one."""

    async def run() -> None:
        async with connect(server.url) as client, connect(server.url) as other:
            shared = SharedConnection(client, calls_under_way=3)
            await shared.ask([("ECHO", "connected")])
            server.signal(signal.SIGSTOP)
            replies = sent(shared, *[("ECHO", "a")] * 5)
            await asyncio.sleep(0)
            server.kill()
            async with asyncio.timeout(BOUND):
                told = await asyncio.gather(*replies)
            assert [isinstance(reply, RedisConnectionError) for reply in told] == [True] * 5
            with pytest.raises(RedisError):
                await shared.ask([("ECHO", "away")])
            await server.start()
            assert await shared.ask([("ECHO", "back")]) == [b"back"]
            # The server cuts one that is idle: the next call is answered all the same.
            await other.client_kill_filter(_type="normal", skipme=True)
            assert await shared.ask([("ECHO", "again")]) == [b"again"]

    runner.run(run())


def test_a_redis_that_hangs_is_given_up(
    runner: asyncio.Runner, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reply for as long as a command may take: all who wait are told, and the next asks anew."""
    monkeypatch.setattr("streaming.connections.COMMAND_TIMEOUT", timedelta(milliseconds=100))

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client)
            await shared.ask([("ECHO", "connected")])
            server.signal(signal.SIGSTOP)
            async with asyncio.timeout(BOUND):
                told = await asyncio.gather(*sent(shared, ("ECHO", "a"), ("ECHO", "b")))
            assert [type(reply) for reply in told] == [RedisTimeoutError] * 2
            server.signal(signal.SIGCONT)
            assert await shared.ask([("ECHO", "back")]) == [b"back"]

    runner.run(run())


def test_a_master_that_became_a_replica_is_left(runner: asyncio.Runner, server: RedisServer) -> None:
    """A server that takes no writes any more is as good as away: its connection is not used again."""

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client)
            [before] = await shared.ask([("CLIENT", "ID")])
            await client.replicaof("127.0.0.1", 1)
            with pytest.raises(RedisConnectionError):
                await shared.ask([("SET", "a", 1)])
            await client.replicaof("NO", "ONE")
            [_, after] = await shared.ask([("SET", "a", 1), ("CLIENT", "ID")])
            assert after != before

    runner.run(run())


def test_who_breaks_or_leaves_takes_nothing_from_others(
    runner: asyncio.Runner, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller that raises on its reply, and one that is cancelled, leave the replies of the others alone."""

    async def run() -> None:
        async with connect(server.url) as client:
            shared = SharedConnection(client)

            def broken(_reply: Any) -> None:
                raise ValueError("secret")

            leaving = asyncio.create_task(shared.ask([("ECHO", "left")]))
            shared.send(("ECHO", "broken"), broken)
            staying = sent(shared, ("ECHO", "a"))
            await asyncio.sleep(0)
            leaving.cancel()
            assert await asyncio.gather(*staying) == [b"a"]
            assert leaving.cancelled()

    runner.run(run())
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("decode_responses", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_programs_own_client(server: RedisServer, protocol: int, decode_responses: bool) -> None:
    """Whatever a program's client speaks, replies come; what Redis sends unasked is nobody's."""
    options: dict[str, Any] = {"protocol": protocol, "decode_responses": decode_responses}
    async with Redis.from_url(server.url, **options) as client:
        commands = Commands(client)
        await commands.execute("a", "SET", "a", 1)
        if protocol == 3:
            await commands.execute("a", "CLIENT", "TRACKING", "ON")
            assert await commands.execute("a", "GET", "a") in ("1", b"1")
            async with connect(server.url) as other:
                await other.set("a", 2)
        assert await commands.execute("a", "GET", "a") in ("1", "2", b"1", b"2")
        await commands.execute("a", "HSET", "h", "field", "value")
        assert len(await commands.execute("h", "HGETALL", "h")) in (1, 2)


async def test_the_drivers_connections_can_be_tapped(server: RedisServer) -> None:
    """The parts of the driver below its interface are where they are looked for."""
    async with connect(server.url) as client:
        connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        assert can_be_tapped(connection)
        await client.connection_pool.release(connection)
