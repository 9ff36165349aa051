"""The standalone host's HTTP server, and the event loop that it runs on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from hosting.garbage import GarbageWatch
from hosting.http_protocol import bounded_protocol
from hosting.listener import BACKLOG
from streaming.settings import Settings

#: How long open responses may take to end when the service is asked to stop.
STOP_GRACE: Final = timedelta(seconds=3)

#: How long a thread that computes (an agent's, its framework's) may keep others waiting, readers among them.
#: Python's 5 ms are many times what a chunk takes on its way.
SWITCH_INTERVAL: Final = timedelta(milliseconds=1)

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Lets readers go before it waits for their connections to end. Made on the loop that it runs on."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        let_readers_go: Callable[[], Awaitable[None]],
        on_ready: Callable[[], None],
        executes_runs: Callable[[], bool],
    ) -> None:
        """Serve ``app``.

        Args:
            app: What is served.
            settings: Where, and within which limits.
            let_readers_go: Called before it is waited for open responses to end.
            on_ready: Called once it listens.
            executes_runs: See ``GarbageWatch``.
        """
        super().__init__(_config(app, settings))
        self._let_readers_go = let_readers_go
        self._on_ready = on_ready
        self._garbage = GarbageWatch(executes_runs)
        self._loop = asyncio.get_running_loop()
        self._letting_go: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT or SIGTERM.

        The base class raises the signal again when the server has stopped, which would interrupt the rest
        of a clean stop.
        """
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Tell readers to come back; then stop as usual."""
        self._loop.call_soon_threadsafe(self._begin_to_stop)
        super().handle_exit(sig, frame)

    def stop(self) -> None:
        """Stop, as a signal would."""
        self.handle_exit(signal.SIGTERM, None)

    def _begin_to_stop(self) -> None:
        self._letting_go = asyncio.ensure_future(self._let_readers_go())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        self._garbage.start()
        sys.setswitchinterval(SWITCH_INTERVAL.total_seconds())
        self._on_ready()


def _config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(settings.limits.max_header_bytes),
        ws="none",
        # What X-Forwarded-For says counts for nothing unless somebody vouches for it.
        proxy_headers=bool(settings.access.trusted_proxies),
        forwarded_allow_ips=list(settings.access.trusted_proxies),
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=int(STOP_GRACE.total_seconds()),
    )


def new_loop() -> asyncio.AbstractEventLoop:
    """The fastest event loop that there is for this system."""
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
