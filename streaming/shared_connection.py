"""One connection to Redis that all callers on an event loop share: what they ask is sent as it comes.

Pipelining (https://redis.io/docs/latest/develop/using-commands/pipelining/) without anybody who waits for a
pipeline to be full: what is asked in one turn of the loop leaves together, and the next does not wait for the
replies. The connection is the pool's own. It goes back there when it is idle, and every few seconds, so that
whatever the pool does for its connections (health, signing in anew, another master) is done for this one too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.connections import COMMAND_TIMEOUT
from streaming.wire import Tap, tapped

_log = logging.getLogger(__name__)

#: Calls that Redis has not answered yet; more wait here. Redis takes less than a millisecond for so many.
CALLS_UNDER_WAY: Final = 200
#: Bytes of them; one call may be larger.
BYTES_UNDER_WAY: Final = 8 * 1_048_576
#: So many calls leave before the turn of the loop ends, then twice as many, and so on: Redis begins with
#: the first while the others are made, and few writes take all of them.
SENT_FIRST: Final = 8
#: How often it is looked whether Redis still answers, and whether the connection is needed.
LOOK_INTERVAL: Final = timedelta(seconds=1)
#: How often within the time that a reply may take.
LOOKS_AT_LEAST: Final = 4
#: How long a busy connection is kept before the pool sees it again.
HELD_AT_MOST: Final = timedelta(seconds=10)

#: Given what Redis answered, or the error.
OnReply = Callable[[Any], None]


class SharedConnection:
    """Belongs to the client's event loop. For one server; on a cluster each key has its own."""

    def __init__(self, redis: Redis, *, calls_under_way: int = CALLS_UNDER_WAY) -> None:
        """Share a connection of ``redis``, which takes no more than so many calls at once."""
        self._redis = redis
        self._most = calls_under_way
        #: As many as there are callers: each waits for its reply before it asks on.
        self._waiting: deque[tuple[bytes, OnReply]] = deque()
        self._under_way: deque[tuple[int, OnReply]] = deque()
        self._bytes_under_way = 0
        self._tap: Tap | None = None
        self._flush_is_due = False
        #: So many waiting calls leave before the turn ends.
        self._flush_from = SENT_FIRST
        #: The connection is to go back to the pool: nothing more is sent.
        self._is_leaving = False
        #: What is to be raised once a connection is not to be used again.
        self._outdated: RedisError | None = None
        self._answered = 0
        #: The connection is lost, or has all of its replies.
        self._stirred = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    def send(self, command: tuple[Any, ...], on_reply: OnReply) -> bool:
        """Call ``on_reply`` with what Redis answers, or a ``RedisError``: the command may be executed then.

        A command may not block in Redis. Returns whether it leaves at the loop's next turn; else it waits
        for a connection.
        """
        self._waiting.append((hiredis.pack_command(command), on_reply))
        if self._tap is None:
            if self._holder is None:
                self._holder = asyncio.create_task(self._hold_while_needed(), name="redis-shared-connection")
            return False
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush_due)
        if len(self._waiting) >= self._flush_from:
            self._flush_from *= 2
            self._flush()
        return not self._is_leaving

    async def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What Redis answers to each; errors that it answered are among them.

        Raises:
            RedisError: Redis is away; commands may have been executed, even twice.
        """
        retry = self._redis.get_retry()
        if retry is None:
            return await self._ask(commands)

        async def begin_anew(_error: Exception) -> None:
            """The next try has another connection."""

        return await retry.call_with_retry(lambda: self._ask(commands), begin_anew)

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = []
        all_there: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == len(commands) and not all_there.done():
                all_there.set_result(None)

        for command in commands:
            self.send(command, take)
        await all_there
        for reply in replies:
            if isinstance(reply, (RedisConnectionError, RedisTimeoutError)):
                raise reply
        return replies

    def _flush_due(self) -> None:
        self._flush_is_due, self._flush_from = False, SENT_FIRST
        self._flush()

    def _flush(self) -> None:
        if self._tap is None or self._is_leaving:
            return
        packed = []
        while self._waiting and len(self._under_way) < self._most and self._bytes_under_way < BYTES_UNDER_WAY:
            command, on_reply = self._waiting.popleft()
            packed.append(command)
            self._under_way.append((len(command), on_reply))
            self._bytes_under_way += len(command)
        if packed:
            self._tap.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def _take(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, hiredis.PushNotification):
                continue
            if not self._under_way:
                # Nobody asked: whose replies come next is not known any more.
                self._outdated = RedisConnectionError("Redis answered what was not asked.")
                break
            size, on_reply = self._under_way.popleft()
            self._bytes_under_way -= size
            self._answered += 1
            _tell(on_reply, self._checked(reply) if isinstance(reply, RedisError) else reply)
        if self._waiting:
            self._flush()
        if self._outdated is not None or (self._is_leaving and not self._under_way):
            self._stirred.set()

    def _checked(self, error: RedisError) -> RedisError:
        if isinstance(error, ReadOnlyError):
            # The master has become a replica; the pool finds the new one.
            error = RedisConnectionError("The server takes no writes: it is a replica.")
        if isinstance(error, RedisConnectionError):
            self._outdated = error
        return error

    async def _hold_while_needed(self) -> None:
        try:
            while self._waiting:
                try:
                    await self._hold()
                except Exception as error:  # noqa: BLE001 - all who wait are told
                    self._fail(self._waiting, _as_redis_error(error))
        finally:
            self._holder = None
            # It was cancelled, or broke.
            self._fail(self._waiting, RedisConnectionError("The connection was closed."))

    async def _hold(self) -> None:
        """Send what waits, and what comes meanwhile, over a connection of the pool."""
        pool = self._redis.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        failure: Exception | None = None
        try:
            await connection.check_health()
            self._is_leaving, self._outdated = False, None
            with tapped(connection, self._take, self._stirred.set) as self._tap:
                self._flush()
                # A client may have a limit of its own.
                limit = connection.socket_timeout or COMMAND_TIMEOUT.total_seconds()
                await self._until_released(self._tap, limit)
        except Exception as error:
            failure = error
            if self._tap is None:
                raise
            # What waits was not sent, so it may go over the next connection.
        finally:
            self._tap = None
            if self._under_way or failure is not None:
                await connection.disconnect(nowait=True)
            if self._under_way:
                self._fail(self._under_way, _as_redis_error(failure))
            self._bytes_under_way = 0
            await pool.release(connection)

    async def _until_released(self, tap: Tap, limit: float) -> None:
        """Wait, no longer than ``limit`` seconds for a reply.

        Raises:
            RedisError: the connection can't be used any more.
        """
        loop = asyncio.get_running_loop()
        look_interval = min(LOOK_INTERVAL.total_seconds(), limit / LOOKS_AT_LEAST)
        held_since = heard_at = loop.time()
        answered = -1
        while True:
            await self._stir(look_interval)
            self._raise_if_unusable(tap)
            is_idle = self._answered == answered
            if not is_idle:
                heard_at, answered = loop.time(), self._answered
            elif self._under_way and loop.time() - heard_at >= limit:
                raise RedisTimeoutError("Redis does not answer.")
            self._is_leaving = loop.time() - held_since >= HELD_AT_MOST.total_seconds()
            if not self._under_way and (is_idle or self._is_leaving):
                return

    async def _stir(self, within: float) -> None:
        self._stirred.clear()
        handle = asyncio.get_running_loop().call_later(within, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            handle.cancel()

    def _raise_if_unusable(self, tap: Tap) -> None:
        if tap.is_lost:
            raise RedisConnectionError("The connection to Redis was lost.")
        if self._outdated is not None:
            raise self._outdated

    @staticmethod
    def _fail(calls: deque[tuple[Any, OnReply]], error: RedisError) -> None:
        """Tell all that are there now; those that they ask on that come after."""
        failed = list(calls)
        calls.clear()
        for _, on_reply in failed:
            _tell(on_reply, error)


def _tell(on_reply: OnReply, reply: Any) -> None:
    try:
        on_reply(reply)
    except Exception as error:  # noqa: BLE001 - the others have replies to come
        _log.error("a reply of Redis was not handled: error=%s", type(error).__name__)
        _log.debug("reply not handled", exc_info=True)


def _as_redis_error(error: Exception | None) -> RedisError:
    if isinstance(error, RedisError):
        return error
    # The driver raises whatever it meets where a connection is closed under it.
    _log.debug("connection to Redis lost", exc_info=error)
    return RedisConnectionError("The connection to Redis was lost.")
