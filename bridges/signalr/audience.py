"""Which conversations somebody has joined, for those who push: one short key in Redis for each."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from redis.asyncio import Redis

from streaming.identifiers import keys_of

#: How long a new thread waits to be joined by its maker, who joins at once.
OPEN_FOR: Final = timedelta(minutes=10)
_OPEN: Final = "open"
_JOINED: Final = "joined"


class Audience:
    """Belongs to the event loop that its client belongs to. Its calls raise ``RedisError``."""

    def __init__(self, redis: Redis, ttl: timedelta) -> None:
        """Remember for ``ttl`` after somebody has joined."""
        self._redis = redis
        self._ttl = ttl

    async def open(self, conversation_id: str) -> None:
        """Note a new thread, which one connection may join without a token: see ``claim``."""
        await self._redis.set(_key(conversation_id), _OPEN, ex=OPEN_FOR)

    async def claim(self, conversation_id: str) -> bool:
        """Join a thread that is open still. Of several who try, one succeeds."""
        was = await self._redis.set(_key(conversation_id), _JOINED, ex=self._ttl, xx=True, get=True)
        return was in (_OPEN, _OPEN.encode())

    async def joined(self, conversation_id: str) -> None:
        """Note that somebody has joined."""
        await self._redis.set(_key(conversation_id), _JOINED, ex=self._ttl)

    async def is_joined(self, conversation_id: str) -> bool:
        """Whether there may be somebody to push to."""
        return await self._redis.get(_key(conversation_id)) in (_JOINED, _JOINED.encode())


def _key(conversation_id: str) -> str:
    """In the stream's slot of a cluster."""
    return f"{{{keys_of(conversation_id).stream}}}:push"
