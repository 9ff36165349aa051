"""Which conversations somebody has joined, for those who push: one short key in Redis for each."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from streaming.commands import Commands, milliseconds
from streaming.identifiers import keys_of

#: How long a new thread waits to be joined by its maker, who joins at once.
OPEN_FOR: Final = timedelta(minutes=10)
_OPEN: Final = "open"
_JOINED: Final = "joined"


class Audience:
    """Belongs to the event loop of its commands. Its calls raise ``RedisError``."""

    def __init__(self, commands: Commands, ttl: timedelta) -> None:
        """Remember for ``ttl`` after somebody has joined."""
        self._commands = commands
        self._ttl = ttl

    async def open(self, conversation_id: str) -> None:
        """Note a new thread, which one connection may join without a token: see ``claim``."""
        await self._set(conversation_id, _OPEN, OPEN_FOR)

    async def claim(self, conversation_id: str) -> bool:
        """Join a thread that is open still. Of several who try, one succeeds."""
        redis = self._commands.redis
        was = await redis.set(_key(conversation_id), _JOINED, ex=self._ttl, xx=True, get=True)
        return was in (_OPEN, _OPEN.encode())

    async def joined(self, conversation_id: str) -> None:
        """Note that somebody has joined."""
        await self._set(conversation_id, _JOINED, self._ttl)

    async def is_joined(self, conversation_id: str) -> bool:
        """Whether there may be somebody to push to."""
        key = _key(conversation_id)
        return await self._commands.execute(key, "GET", key) in (_JOINED, _JOINED.encode())

    async def _set(self, conversation_id: str, value: str, ttl: timedelta) -> None:
        key = _key(conversation_id)
        await self._commands.execute(key, "SET", key, value, "PX", milliseconds(ttl))


def _key(conversation_id: str) -> str:
    """In the stream's slot of a cluster."""
    return f"{{{keys_of(conversation_id).stream}}}:push"
