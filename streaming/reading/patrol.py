"""Looks through the followed streams: for readers that have waited long enough, and for silent streams.

Neither has a timer or a task of its own: there may be ten thousand of both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from streaming.reading.live_stream import LiveStream
from streaming.reading.liveness import LIVENESS_INTERVAL, Seen

_log = logging.getLogger(__name__)

#: The streams are looked through this often.
INTERVAL: Final = timedelta(milliseconds=250)
#: Streams of one look, in about 0.1 ms; then what came meanwhile goes first.
AT_ONCE: Final = 100
#: In each round at most this share of the streams is asked about in Redis: after an outage all of them are
#: due at the same time.
ASKED_SHARE: Final = 0.1


class Patrol:
    """Looks through streams until it is cancelled."""

    def __init__(
        self, streams: Mapping[str, LiveStream], on_silence: Callable[[LiveStream, str | None], None]
    ) -> None:
        """Look through ``streams``.

        Args:
            streams: Those that are followed at the time.
            on_silence: Told of each stream that is silent, but whose run may go on; and the id of the newest
                entry in Redis, where that is known.
        """
        self._streams = streams
        self._on_silence = on_silence

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(INTERVAL.total_seconds())
            now = asyncio.get_running_loop().time()
            streams = list(self._streams.values())
            left = max(AT_ONCE, int(len(streams) * ASKED_SHARE))
            for place, stream in enumerate(streams):
                if place % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
                stream.patrol(now)
                if left and now - stream.stirred_at >= LIVENESS_INTERVAL.total_seconds():
                    left -= 1
                    stream.stirred_at = now
                    self._ask(stream)

    def _ask(self, stream: LiveStream) -> None:
        try:
            for watch in stream.watches.values():
                watch.look(partial(self._take, stream))
        except Exception as error:  # noqa: BLE001 - without this task readers wait for ever
            _log.error("silent stream not looked at: error=%s", type(error).__name__)
            _log.debug("look failed", exc_info=True)

    def _take(self, stream: LiveStream, seen: Seen) -> None:
        if seen.is_over:
            stream.let_go()
        else:
            self._on_silence(stream, seen.newest)
