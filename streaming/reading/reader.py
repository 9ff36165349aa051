"""Opens reads of conversations' streams; one reader serves all of an event loop.

``StreamReader.open`` decides where a read starts, so that a host can still answer with a status; iterating
the ``OpenStream`` it returns does the rest. Rules: docs/protocol.md, section 4.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Final

from redis.exceptions import RedisError

from streaming.durable_answer import Restore
from streaming.errors import ConversationNotFound, RunNotFound
from streaming.identifiers import FIRST, Keys, keys_of
from streaming.reading.follower import StreamFollower
from streaming.reading.liveness import ProducerCheck
from streaming.reading.open_stream import OpenStream, ReadOptions
from streaming.reading.span import Cursor, SpanFinder
from streaming.store.run_store import RunStore
from streaming.store.trouble import describe

#: A silent reader is given an empty batch this often, so that its host can send a heartbeat; proxies cut
#: connections that are silent for 30 to 60 s.
HEARTBEAT: Final = timedelta(seconds=15)


class StreamReader:
    """Reads streams on the running event loop."""

    def __init__(
        self,
        runs: RunStore,
        *,
        dead_after: timedelta = timedelta(0),
        producers: ProducerCheck | None = None,
    ) -> None:
        """Read what ``runs`` are stored with.

        Args:
            runs: The event loop's own.
            dead_after: How long after its lease a run is given up. Longer where a scheduler may resume it.
            producers: Looks whether runs have a producer, in another way.
        """
        self._runs = runs
        self.producers: Final = producers or ProducerCheck(runs, dead_after)
        self._follower = StreamFollower(runs.commands, runs.telemetry)

    @property
    def closed(self) -> bool:
        """Whether readers are sent away: the service stops."""
        return self._follower.closed

    async def close(self) -> None:
        """Let all readers go: they end as if cut."""
        await self._follower.close()

    async def open(
        self,
        conversation_id: str,
        cursor: str | None = None,
        *,
        run: str | None = None,
        follow: bool = False,
        appear_timeout: timedelta = timedelta(0),
        heartbeat: timedelta = HEARTBEAT,
        restore: Restore | None = None,
    ) -> OpenStream:
        """Find out where a read starts.

        Args:
            conversation_id: A valid id.
            cursor: ``None``: the latest run from its start. ``0``: all that is retained. ``$``: only what
                is new. An entry id: strictly after it.
            run: Only this run, from its start where there is no cursor.
            follow: Go on through later runs.
            appear_timeout: How long an unknown conversation is waited for.
            heartbeat: How often a silent read gives an empty batch.
            restore: Asked for a run that Redis has lost, now or while it is read.

        Raises:
            InvalidCursor: the cursor is malformed, or lies after everything in the stream.
            ConversationNotFound: there is no such stream.
            RunNotFound: the conversation has no such run.
            StreamUnavailable: Redis does not answer.
            NotAStream: the conversation's key holds something else.
            TaskHubUnavailable: Redis has lost the run, and the durable state can't be read.
        """
        wanted = Cursor.parse(cursor)
        finder = SpanFinder(self._runs, conversation_id)
        try:
            await self._wait_until_there(conversation_id, run, appear_timeout, restore)
            try:
                span = await finder.find(wanted, run)
            except RunNotFound:
                if restore is None or not await restore(conversation_id, run):
                    # Redis may have been flushed in between.
                    await self._wait_until_there(conversation_id, run, appear_timeout, restore)
                span = await finder.find(wanted, run)
        except RedisError as error:
            self._runs.telemetry.redis_failed("open", error)
            raise describe(error) from error
        self._runs.telemetry.redis_answered()
        if follow and run is None:
            # Whoever follows a conversation wants all of it.
            span = replace(span, run=None)
        return OpenStream(
            self._runs,
            self._follower,
            conversation_id,
            span=span,
            producers=self.producers,
            options=ReadOptions(
                follow=follow,
                heartbeat=heartbeat,
                restore=restore,
                resumed=wanted.after not in (None, FIRST),
            ),
        )

    async def _wait_until_there(
        self, conversation_id: str, run: str | None, timeout: timedelta, restore: Restore | None
    ) -> None:
        keys = keys_of(conversation_id)
        if await self._is_there(keys):
            return
        # A run that is named can't be mistaken for another. Where none is, the latest may be in progress and
        # about to be made known again (its lease's keeper does so), so that is waited for first.
        if run is not None and restore is not None and await restore(conversation_id, run):
            return
        if await self._appears(keys, timeout):
            return
        if restore is None or not await restore(conversation_id, run):
            raise ConversationNotFound

    async def _appears(self, keys: Keys, timeout: timedelta) -> bool:
        if timeout <= timedelta(0):
            return False
        deadline = asyncio.get_running_loop().time() + timeout.total_seconds()
        live = await self._follower.acquire(keys, foreign=True)
        try:
            while not await self._is_there(keys):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or self._follower.closed:
                    return False
                await live.wait(left)
        finally:
            await self._follower.release(live, foreign=True)
        return True

    async def _is_there(self, keys: Keys) -> bool:
        return bool(await self._runs.commands.execute(keys.stream, "EXISTS", keys.stream, keys.runs))
