"""Which Redis is looked into, and the parts that look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from redis.asyncio import Redis

from hosting.embedded.redis_process import find_running
from inspector.options import InspectorSettings
from inspector.recording import Recording, record_from_file, record_from_redis
from streaming.connections import connect
from streaming.errors import StreamUnavailable
from streaming.store.conversations import Conversations
from streaming.store.run_store import RunStore


@dataclass(frozen=True, slots=True)
class OpenedRedis:
    """A Redis, for the running event loop."""

    url: str
    redis: Redis
    runs: RunStore
    stream_ttl: timedelta

    @property
    def conversations(self) -> Conversations:
        """What is stored there."""
        return self.runs.conversations

    def another(self) -> Redis:
        """A client for another event loop."""
        return connect(self.url)


@asynccontextmanager
async def connected(settings: InspectorSettings) -> AsyncIterator[OpenedRedis]:
    """The Redis of the settings, or of the service that runs in this folder.

    Raises:
        StreamUnavailable: neither is there.
    """
    url = settings.redis_url or await find_running(settings.data_dir)
    if url is None:
        raise StreamUnavailable(
            "Which Redis? REDIS_CONNECTION_STRING is not set, and no service with an embedded Redis runs on "
            f"{settings.data_dir.resolve()}: set it, start the service (make run), or set DATA_DIR."
        )
    async with connect(url) as redis:
        yield OpenedRedis(url, redis, RunStore(redis, settings.stream_ttl), settings.stream_ttl)


@asynccontextmanager
async def opened(source: str, settings: InspectorSettings) -> AsyncIterator[Recording]:
    """A conversation by its id, or a file of that name, which needs no Redis.

    Raises:
        DamagedRecording: the file is no recording, or not all of one.
        ConversationNotFound: nothing is stored of it.
        InvalidInput: it can be neither.
        StreamUnavailable: Redis does not answer.
    """
    path = Path(source)
    if path.is_file():  # noqa: ASYNC240 - a program of its own: nobody else is on its loop
        yield await record_from_file(path)
        return
    async with connected(settings) as connection:
        yield await record_from_redis(connection.conversations, source)
