"""Calls the server-side scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.commands import Commands, milliseconds
from streaming.connections import execute_together
from streaming.shared_connection import OnReply

_FOLDER: Final = Path(__file__).with_name("lua")

#: How long an append waits for its replicas, where it waits for any; then it is repeated. Replication takes
#: about as long as a round trip, so a longer wait only hides that a replica is gone.
REPLICA_TIMEOUT: Final = timedelta(seconds=1)


class Scripts:
    """Scripts, by default those in ``lua/``. Belongs to the event loop of the commands that call them."""

    def __init__(self, commands: Commands, *, wait_replicas: int = 0, folder: Path = _FOLDER) -> None:
        """Call the scripts in ``folder``; replicated calls wait for so many replicas."""
        self._commands = commands
        self._folder = folder
        self._wait_replicas = wait_replicas

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

    def send(
        self,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[str | int],
        on_reply: OnReply,
        *,
        is_replicated: bool = False,
    ) -> bool:
        """Call a script; ``on_reply`` is given what ``call`` would return or raise.

        Returns whether it leaves at the loop's next turn; else it takes a few more.
        """

        def call_later() -> None:
            self._commands.tell(self.call(name, keys, arguments, is_replicated=is_replicated), on_reply)

        def take(reply: Any) -> None:
            if isinstance(reply, NoScriptError):
                call_later()
            else:
                on_reply(reply)

        if is_replicated and self._wait_replicas:
            call_later()
            return False
        _, digest = _script(self._folder, name)
        return self._commands.send(keys[0], ("EVALSHA", digest, len(keys), *keys, *arguments), take)

    async def _execute(self, key: str, command: tuple[Any, ...], replicas: int) -> Any:
        if replicas:
            return await self._execute_replicated(key, command, replicas)
        [reply] = await self._commands.execute_together(key, command)
        return reply

    async def _execute_replicated(self, key: str, command: tuple[Any, ...], replicas: int) -> Any:
        """Wait for replicas too: https://redis.io/docs/latest/commands/wait/.

        ``WAIT`` speaks of its own connection. A repeated append writes there too: it renews the TTLs.
        """
        wait = ("WAIT", replicas, milliseconds(REPLICA_TIMEOUT))
        reply, reached = await execute_together(self._commands.redis, key, command, wait)
        if isinstance(reply, RedisError):
            return reply
        if isinstance(reached, RedisError):
            return reached
        if reply[0] in (b"ok", "ok") and int(reached) < replicas:
            return RedisTimeoutError(f"{reached} replicas have it, {replicas} are wanted.")
        return reply


@cache
def _script(folder: Path, name: str) -> tuple[str, str]:
    """A script and what the server calls it."""
    source = (folder / f"{name}.lua").read_text(encoding="utf-8")
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
