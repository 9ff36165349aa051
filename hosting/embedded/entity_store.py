"""What agents remember of their conversations, kept in Redis beside the streams: for the embedded task hub.

The hub asks from its threads; the work is done on the event loop that the store was made on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from datetime import timedelta
from typing import Final

from durabletask.entities import EntityInstanceId
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streaming.cancellation import cancel_and_wait
from streaming.commands import Commands, milliseconds
from streaming.errors import StreamUnavailable
from streaming.identifiers import keys_of

_log = logging.getLogger(__name__)

#: A state is read in milliseconds; a server that takes no connection costs five seconds before another is
#: asked. After this Redis counts as away, before the hub's caller gives up.
LOAD_TIMEOUT: Final = timedelta(seconds=8)
#: How long a turn waits for its state to be saved before it goes on without. Saving goes on too.
SAVE_TIMEOUT: Final = timedelta(seconds=2)
#: Pauses between attempts to save: a blip is over at once, an outage is not made worse.
_FIRST_PAUSE: Final = timedelta(milliseconds=100)
_LONGEST_PAUSE: Final = timedelta(seconds=2)
#: What is not saved yet when the service stops gets this long.
CLOSE_TIMEOUT: Final = timedelta(seconds=5)


class EntityStore:
    """The states of entities in one Redis. Each is kept for ``ttl`` after it was last saved."""

    def __init__(self, redis: Redis, ttl: timedelta) -> None:
        """Keep states in ``redis``, a client of the running event loop that the store closes at its end."""
        self._commands = Commands(redis)
        self._ttl = milliseconds(ttl)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._unsaved: dict[str, str | None] = {}
        self._saving: dict[str, asyncio.Task[None]] = {}
        self._is_away = False

    def load(self, entity_id: str) -> str | None:
        """The state that Redis has; ``None``: none. Blocks; not for the store's own loop.

        Raises:
            StreamUnavailable: Redis does not answer.
        """
        loading = asyncio.run_coroutine_threadsafe(self._read(entity_id), self._loop)
        try:
            return loading.result(LOAD_TIMEOUT.total_seconds())
        except (RedisError, TimeoutError):
            loading.cancel()
            raise StreamUnavailable from None

    def save(self, entity_id: str, state: str | None) -> concurrent.futures.Future[None]:
        """Begin to save a state (``None``: delete it), after those of the entity that came before.

        Nothing is given up: while Redis is away, the newest state waits here and is tried again.
        """
        with self._lock:
            self._unsaved[entity_id] = state
        return asyncio.run_coroutine_threadsafe(self._until_saved(entity_id), self._loop)

    def wait(self, saving: concurrent.futures.Future[None]) -> None:
        """Wait until it is saved, but not for long: Redis being away must not hold the hub. Blocks."""
        concurrent.futures.wait([saving], 0 if self._is_away else SAVE_TIMEOUT.total_seconds())

    def is_saved(self, entity_id: str) -> bool:
        """Whether Redis has been given the newest state."""
        return entity_id not in self._unsaved

    async def close(self) -> None:
        """Save what waits to be saved, for a bounded time; then let Redis go."""
        if self._saving:
            await asyncio.wait(self._saving.values(), timeout=CLOSE_TIMEOUT.total_seconds())
        await cancel_and_wait(self._saving.values())
        if self._unsaved:
            _log.error("Redis is away: the last turns of %d conversations are lost", len(self._unsaved))
        await self._commands.redis.aclose()

    async def _read(self, entity_id: str) -> str | None:
        key = _key(entity_id)
        found = await self._commands.execute(key, "GET", key)
        return found.decode() if isinstance(found, bytes) else found

    async def _until_saved(self, entity_id: str) -> None:
        saving = self._saving.get(entity_id)
        if saving is None:
            # One at a time for each entity, so that no older state comes after a newer one.
            saving = self._saving[entity_id] = asyncio.create_task(self._save(entity_id))
        await asyncio.shield(saving)

    async def _save(self, entity_id: str) -> None:
        pause = _FIRST_PAUSE
        try:
            while not self.is_saved(entity_id):
                state = self._unsaved[entity_id]
                try:
                    await self._write(entity_id, state)
                except RedisError as error:
                    self._note_away(error)
                    await asyncio.sleep(pause.total_seconds())
                    pause = min(pause * 2, _LONGEST_PAUSE)
                else:
                    self._note_back()
                    self._mark_saved(entity_id, state)
        finally:
            del self._saving[entity_id]

    def _mark_saved(self, entity_id: str, state: str | None) -> None:
        with self._lock:
            if self._unsaved[entity_id] is state:
                del self._unsaved[entity_id]

    async def _write(self, entity_id: str, state: str | None) -> None:
        key = _key(entity_id)
        if state is None:
            await self._commands.execute(key, "DEL", key)
        else:
            await self._commands.execute(key, "SET", key, state, "PX", self._ttl)

    def _note_away(self, error: RedisError) -> None:
        if not self._is_away:
            self._is_away = True
            _log.warning("conversations can't be saved, tried again until they are: %s", type(error).__name__)

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            _log.info("conversations are saved again")


def _key(entity_id: str) -> str:
    entity = EntityInstanceId.parse(entity_id)
    return keys_of(entity.key).agent(entity.entity)
