"""Follows one run's stream and pushes what it reads. It knows the reader and the service, and no agents."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from bridges.signalr.errors import PushRefused, PushUnavailable
from bridges.signalr.messages import Push, PushedRun
from bridges.signalr.service_client import SignalRServiceClient
from streaming.errors import StreamingError
from streaming.reading.reader import StreamReader
from streaming.text_blocks import chunks_of

_log = logging.getLogger(__name__)

#: How long the service may stay away before a run is pushed no more: its clients read the stream by then.
PATIENCE: Final = timedelta(seconds=60)
#: Between tries while the service is away.
PAUSE_FIRST: Final = timedelta(milliseconds=500)
PAUSE_MOST: Final = timedelta(seconds=5)


class RunPusher:
    """Pushes one run to its conversation's group, in order, one request at a time.

    It reads the stream as any reader does, and only as fast as the service takes pushes: what comes
    meanwhile waits in Redis, and goes out together. So while the service is away nothing piles up here, and
    nothing is lost.
    """

    def __init__(self, reader: StreamReader, client: SignalRServiceClient) -> None:
        """Use the running loop's own reader and client."""
        self._reader = reader
        self._client = client

    async def push(self, conversation_id: str, run: str) -> None:
        """Push a run from its start to its end. Trouble ends it early; the log says so once."""
        pushed = PushedRun(conversation_id, run)
        try:
            opened = await self._reader.open(conversation_id, run=run)
            async with aclosing(opened):
                async for batch in opened:
                    for push in pushed.pushes(chunks_of(batch)):
                        await self._send(push, conversation_id)
                    # The next may be long in coming.
                    del batch
        except StreamingError as error:
            _log.warning(
                "run is pushed no more, its stream is whole: conversation=%s run=%s error=%s",
                conversation_id,
                run,
                error.code,
            )

    async def _send(self, push: Push, group: str) -> None:
        """Send, again while the service is away.

        Raises:
            PushUnavailable: it stayed away, or it refused.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + PATIENCE.total_seconds()
        pause = PAUSE_FIRST.total_seconds()
        is_first = True
        while True:
            try:
                await self._client.send(target=push.target, arguments=[push.argument], group=group)
                return
            except PushRefused:
                raise
            except PushUnavailable:
                if loop.time() >= give_up_at:
                    raise
            if is_first:
                _log.warning("push failed, is tried again: conversation=%s", group)
                is_first = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MOST.total_seconds())
