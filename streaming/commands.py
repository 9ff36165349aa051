"""The commands of one event loop to Redis, in the way that is best for what the client is connected to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streaming.connections import POOL_SIZE, execute_together, is_cluster
from streaming.entries import as_text
from streaming.shared_connection import OnReply, SharedConnection


class Commands:
    """Redis' commands over one client. Belongs to the client's event loop.

    Where the client is for one server, commands share a connection. Replies have the shape that Redis gives
    them there, and the driver's elsewhere.
    """

    def __init__(self, redis: Redis) -> None:
        """Send commands over ``redis``."""
        #: The driver's client.
        self.redis: Final = redis
        # A cluster's keys are on several servers; a stand-in for Redis has no connection to share.
        is_one_server = type(redis) is Redis
        self._shared = SharedConnection(redis) if is_one_server else None
        # Beside the others: a page takes longer than they do, and thousands of readers may want one each.
        self._pages = SharedConnection(redis, calls_under_way=POOL_SIZE) if is_one_server else None
        self._asking: set[asyncio.Task[None]] = set()
        # A client of a kind that is not known fails where its connections don't suffice.
        self._turns = asyncio.Semaphore(POOL_SIZE)

    @property
    def is_cluster(self) -> bool:
        """Whether one command can't take keys of several slots."""
        return is_cluster(self.redis)

    async def execute(self, key: str, *command: Any) -> Any:
        """What Redis answers to a command; ``key`` is one of its keys.

        Raises:
            RedisError: Redis refused, or is away; the command may have been executed, even twice.
        """
        [reply] = await self.execute_together(key, command)
        return checked(reply)

    async def page(self, key: str, *command: Any) -> Any:
        """``execute`` for a command whose reply is large."""
        [reply] = await self.execute_together(key, command, are_pages=True)
        return checked(reply)

    async def execute_together(
        self, key: str, *commands: Sequence[Any], are_pages: bool = False
    ) -> list[Any]:
        """What Redis answers to each; errors that it answered are among them.

        Args:
            key: One of the commands' keys; all have to be in its slot.
            commands: The commands.
            are_pages: Replies are large.

        Raises:
            RedisError: Redis is away; commands may have been executed, even twice.
        """
        asked = [tuple(command) for command in commands]
        shared = self._pages if are_pages else self._shared
        if shared is not None:
            return await shared.ask(asked)
        if self.is_cluster:
            return await execute_together(self.redis, key, *asked)
        async with self._turns:
            return await execute_together(self.redis, key, *asked)

    def send(self, key: str, command: Sequence[Any], on_reply: OnReply) -> bool:
        """Give ``on_reply`` what Redis answers, or the error: the command may be executed then.

        Returns whether it leaves at the loop's next turn; else it takes a few more.
        """
        if self._shared is not None:
            return self._shared.send(tuple(command), on_reply)

        async def ask() -> Any:
            [reply] = await self.execute_together(key, command)
            return reply

        self.tell(ask(), on_reply)
        return False

    def tell(self, asked: Coroutine[Any, Any, Any], on_reply: OnReply) -> None:
        """Give ``on_reply`` what a coroutine returns or raises."""

        async def run() -> None:
            try:
                reply = await asked
            except Exception as error:  # noqa: BLE001 - it is for the one who asked
                reply = error
            on_reply(reply)

        asking = asyncio.create_task(run(), name="redis-command")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)


def checked(reply: Any) -> Any:
    """A reply that is no error.

    Raises:
        RedisError: it is one.
    """
    if isinstance(reply, RedisError):
        raise reply
    return reply


def fields_of(reply: Mapping[Any, Any] | Sequence[Any]) -> dict[str, str]:
    """A hash, in any of the shapes in which it is given."""
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {as_text(name): as_text(value) for name, value in pairs}


def milliseconds(value: timedelta) -> int:
    """A time as commands and scripts take it."""
    return int(value / timedelta(milliseconds=1))
