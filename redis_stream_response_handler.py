"""The stream: append and read, both halves of the stored format.

``RedisStreamResponseHandler`` is the published interface; the parts it is made of are in ``streaming/``.
It knows Redis and the format, and neither agents nor HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streaming.entries import READING_EVENTS, StreamChunk
from streaming.errors import RunLost, StreamingError, StreamUnavailable
from streaming.identifiers import check_conversation_id, keys_of
from streaming.reading.reader import StreamReader
from streaming.store.run_states import Attempt, Forgotten
from streaming.store.run_store import RunStore
from streaming.telemetry import Telemetry
from streaming.text_blocks import chunks_of
from streaming.text_joiner import storable
from streaming.writing.writer import PATIENCE, RETRY_FIRST, RETRY_MOST

__all__ = ["RedisStreamResponseHandler", "StreamChunk"]

#: How long ``read_stream`` waits for a conversation that is not there yet.
APPEAR_TIMEOUT: Final = timedelta(seconds=30)
#: Told to readers when a run is executed again.
RETRIED_REASON: Final = "the run was interrupted and starts again"
#: Told to readers when Redis has forgotten what it had.
LOST_REASON: Final = "the stream was lost and is written again"


class RedisStreamResponseHandler:
    """Appends to and reads the streams of conversations in one Redis.

    Belongs to the event loop that its client belongs to.
    """

    def __init__(
        self,
        redis_client: Redis,
        stream_ttl: timedelta = timedelta(minutes=10),
        *,
        dead_after: timedelta = timedelta(0),
        wait_replicas: int = 0,
        telemetry: Telemetry | None = None,
    ) -> None:
        """Use ``redis_client``, with ``decode_responses`` on or off.

        Args:
            redis_client: An asyncio client.
            stream_ttl: How long a stream lives after its end; after an entry at least nine tenths of it.
            dead_after: How long after its lease a silent run is given up. Longer where a task hub may
                resume it.
            wait_replicas: An append to a registered run counts only when so many replicas have it.
            telemetry: Told of what is written and read.
        """
        self._redis = redis_client
        self.runs: Final = RunStore(
            redis_client, stream_ttl, wait_replicas=wait_replicas, telemetry=telemetry
        )
        self.reader: Final = StreamReader(self.runs, dead_after=dead_after)

    async def __aenter__(self) -> Self:
        """Enter; nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the handler and its client."""
        await self.aclose()

    async def aclose(self) -> None:
        """Let all readers go and close the client."""
        await self.reader.close()
        with contextlib.suppress(RedisError):
            await self._redis.aclose()

    async def write_chunk(self, conversation_id: str, text: str, sequence: int) -> str:
        """Append a chunk that belongs to no registered run. Returns its entry id.

        Raises:
            InvalidInput: the conversation id can't be used.
            RedisError: Redis refused or did not answer.
        """
        return await self._append_anonymous(conversation_id, text, sequence)

    async def write_completion(self, conversation_id: str, sequence: int) -> str:
        """Append the end of a run that is not registered. Returns its entry id.

        Raises:
            InvalidInput: the conversation id can't be used.
            RedisError: Redis refused or did not answer.
        """
        return await self._append_anonymous(conversation_id, "", sequence, "done", "true")

    async def _append_anonymous(self, conversation_id: str, text: str, sequence: int, *more: str) -> str:
        check_conversation_id(conversation_id)
        fields = ["text", storable(text), "sequence", str(sequence)]
        fields += ["timestamp", str(time.time_ns() // 1_000_000), *more]
        return await self.runs.append_anonymous(conversation_id, fields)

    async def read_stream(
        self,
        conversation_id: str,
        cursor: str | None = None,
        *,
        run: str | None = None,
        follow: bool = False,
        events: bool = False,
        appear_timeout: timedelta = APPEAR_TIMEOUT,
    ) -> AsyncIterator[StreamChunk]:
        """Replay a stream and follow it to the end of the run.

        Args:
            conversation_id: The conversation.
            cursor: ``None``: its latest run from the start. ``"0"``: all that is retained. ``"$"``: only
                what is new. An ``entry_id``: strictly after it.
            run: Only this run.
            follow: Go on through later runs.
            events: Also the entries that are not text: tool calls, reasoning, usage.
            appear_timeout: How long a conversation that is not there is waited for.

        Yields:
            Chunks. The last one has ``is_done`` or ``error``; a ``type`` of ``reset`` means that what was
            given of the run so far is to be discarded, and ``gap`` that entries are missing.
        """
        try:
            check_conversation_id(conversation_id)
            opened = await self.reader.open(
                conversation_id, cursor, run=run, follow=follow, appear_timeout=appear_timeout
            )
        except StreamingError as error:
            yield StreamChunk(entry_id=cursor or "0-0", error=error.message, code=error.code)
            return
        async with aclosing(opened):
            async for batch in opened:
                for chunk in chunks_of(batch):
                    cursor = chunk.entry_id
                    if events or chunk.type is None or chunk.type in READING_EVENTS:
                        yield chunk
                # The next may be long in coming.
                del batch
        if opened.cut_short:
            away = StreamUnavailable()
            yield StreamChunk(entry_id=cursor or "0-0", error=away.message, code=away.code)

    async def begin_run(
        self,
        conversation_id: str,
        run: str,
        *,
        agent: str,
        owner: str,
        patient: bool = False,
        forgotten: Forgotten | None = None,
    ) -> Attempt:
        """Start an attempt of a run, which is registered first if it was not.

        Args:
            conversation_id: The conversation.
            run: The framework's correlation id.
            agent: The agent's name.
            owner: Names this execution: beginning again with the same name changes nothing.
            patient: Try for ``streaming.writing.writer.PATIENCE`` while Redis is away.
            forgotten: The attempt of this execution that is to be written again, since Redis lost it.

        Raises:
            AttemptFenced: another execution has taken over what is to be written again.
            RunEnded: the run has its terminal; it must not be executed again.
            StreamUnavailable: Redis does not answer.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + (PATIENCE.total_seconds() if patient else 0)
        pause = RETRY_FIRST.total_seconds()
        while True:
            try:
                return await self._begin_once(conversation_id, run, agent, owner, forgotten)
            except RedisError as error:
                self.runs.telemetry.redis_failed("begin", error)
                if loop.time() >= give_up_at:
                    raise StreamUnavailable from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MOST.total_seconds())

    async def _begin_once(
        self, conversation_id: str, run: str, agent: str, owner: str, forgotten: Forgotten | None
    ) -> Attempt:
        reason = RETRIED_REASON if forgotten is None else LOST_REASON
        try:
            return await self.runs.begin(
                conversation_id, run, owner=owner, reason=reason, forgotten=forgotten
            )
        except RunLost:
            # The framework may be asked to run an agent by others than our HTTP routes.
            trace = forgotten.attempt.trace if forgotten else ""
            await self.runs.register(conversation_id, run, agent, trace=trace)
            return await self.runs.begin(
                conversation_id, run, owner=owner, reason=reason, forgotten=forgotten
            )

    @staticmethod
    def stream_key(conversation_id: str) -> str:
        """The Redis key of a conversation's stream."""
        return keys_of(conversation_id).stream
