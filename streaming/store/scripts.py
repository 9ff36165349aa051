"""Calls the server-side scripts; calls that come at the same time share a round trip."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.connections import exchange, execute_together, is_cluster

_FOLDER: Final = Path(__file__).with_name("lua")

#: How long an append waits for its replicas, where it waits for any; then it is repeated. Replication takes
#: about as long as a round trip, so a longer wait only hides that a replica is gone.
REPLICA_TIMEOUT: Final = timedelta(seconds=1)
#: Calls of one round trip: more would make the first wait for the last.
CALLS_AT_ONCE: Final = 50
#: Round trips at the same time, so that Redis works while replies are read.
ROUND_TRIPS: Final = 4


class Scripts:
    """Scripts, by default those in ``lua/``, called over one client. Belongs to the client's event loop."""

    def __init__(self, redis: Redis, *, wait_replicas: int = 0, folder: Path = _FOLDER) -> None:
        """Call the scripts in ``folder`` over ``redis``; replicated calls wait for so many replicas."""
        self._redis = redis
        self._folder = folder
        self._wait_replicas = wait_replicas
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        # On a cluster each key has its own server.
        self._shares = not is_cluster(redis)

    async def call(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | int], *, is_replicated: bool = False
    ) -> Any:
        """Call a script; what it returns.

        Raises:
            RedisError: Redis is away, or too few replicas have what the script wrote: call it again.
        """
        source, digest = _script(self._folder, name)
        call = (len(keys), *keys, *arguments)
        replicas = self._wait_replicas if is_replicated else 0
        reply = await self._execute(keys[0], ("EVALSHA", digest, *call), replicas)
        if isinstance(reply, NoScriptError):
            # A server that never saw it: new, restarted, or a replica that became the master. It keeps it.
            reply = await self._execute(keys[0], ("EVAL", source, *call), replicas)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def _execute(self, key: str, command: tuple[Any, ...], replicas: int) -> Any:
        if replicas:
            return await self._execute_replicated(key, command, replicas)
        if not self._shares:
            [reply] = await execute_together(self._redis, key, command)
            return reply
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append((command, reply))
        is_busy = len(self._waiting) >= CALLS_AT_ONCE and len(self._sending) < ROUND_TRIPS
        if not self._sending or is_busy:
            self._sending.add(asyncio.create_task(self._send(), name="script-calls"))
        return await reply

    async def _execute_replicated(self, key: str, command: tuple[Any, ...], replicas: int) -> Any:
        """Wait for replicas too: https://redis.io/docs/latest/commands/wait/.

        ``WAIT`` speaks of its own connection. A repeated append writes there too: it renews the TTLs.
        """
        wait = ("WAIT", replicas, int(REPLICA_TIMEOUT / timedelta(milliseconds=1)))
        reply, reached = await execute_together(self._redis, key, command, wait)
        if isinstance(reply, RedisError):
            return reply
        if isinstance(reached, RedisError):
            return reached
        if reply[0] in (b"ok", "ok") and int(reached) < replicas:
            return RedisTimeoutError(f"{reached} replicas have it, {replicas} are wanted.")
        return reply

    async def _send(self) -> None:
        """Send what waits, one round trip after the other: what comes meanwhile goes into the next."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:CALLS_AT_ONCE], self._waiting[CALLS_AT_ONCE:]
                try:
                    replies = await exchange(self._redis, [command for command, _ in batch])
                except BaseException as error:
                    for _, reply in batch:
                        if not reply.done():
                            reply.set_exception(error)
                            # Its caller may have been cancelled.
                            reply.exception()
                    if not isinstance(error, Exception):
                        raise
                else:
                    for (_, reply), told in zip(batch, replies, strict=True):
                        if not reply.done():
                            reply.set_result(told)
        finally:
            # At once: what comes from here on needs another.
            self._sending.discard(cast("asyncio.Task[None]", asyncio.current_task()))


@cache
def _script(folder: Path, name: str) -> tuple[str, str]:
    """A script and what the server calls it."""
    source = (folder / f"{name}.lua").read_text(encoding="utf-8")
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
