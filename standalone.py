"""Composition root of the standalone host: ``python -m standalone``.

One process with everything in it. With no settings: an embedded Redis-compatible server, an embedded task
hub and an offline demo model. Each setting replaces one of them: README.md, "Configure".
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType
from typing import Final

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette

from agents import create_agents
from bridges.telemetry.backends import create_telemetry
from composition import BridgeSettings, create_bridges
from hosting.asgi import create_app
from hosting.durable_agents import DurableAgents, connect_hub
from hosting.embedded.entity_store import EntityStore
from hosting.embedded.redis_server import EmbeddedRedis
from hosting.http_protocol import bounded_protocol
from hosting.listener import BACKLOG, listen
from hosting.log_format import configure_logging
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from signalr_emulator.server import SignalREmulator, SignalREmulatorError, kept_access_key
from streaming.connections import connect
from streaming.errors import SettingsError, StreamingError
from streaming.http.endpoints import Endpoints
from streaming.loop_local import LoopLocal
from streaming.reading.liveness import RESUME_GRACE, interrupted
from streaming.settings import Settings
from streaming.writing.leases import LeaseKeeper

_log = logging.getLogger("standalone")

#: How long runs in progress may go on when the service is asked to stop.
STOP_GRACE: Final = timedelta(seconds=3)

#: Objects that are made before Python looks for cycles among the young, and how many such looks come before
#: one among the older. Chunks and tasks have none; Python's own 700 would look hundreds of times a second.
YOUNG_OBJECTS: Final = 20_000
LOOKS: Final = (20, 100)

#: Whoever reaches the service at one of these is on this machine, and reaches the emulator too.
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Service:
    """The running parts that the server needs."""

    app: Starlette
    handler: RedisStreamResponseHandler
    redis_note: str


@asynccontextmanager
async def run_service(settings: Settings, bridge_settings: BridgeSettings) -> AsyncIterator[Service]:
    """Everything but the server, while inside.

    Raises:
        SettingsError: settings do not fit together.
    """
    hosted = create_agents(settings.model)
    waits_by_default = {each.agent.name or "": each.waits_by_default for each in hosted}
    async with AsyncExitStack() as stack:
        backends = create_telemetry(bridge_settings.telemetry, waits_by_default)
        stack.push_async_callback(backends.aclose)
        embedded = None
        redis_url = settings.redis_url
        if redis_url is None:
            embedded = EmbeddedRedis(settings.data_dir, port=settings.embedded_redis_port)
            await stack.enter_async_context(embedded)
            redis_url = embedded.url
        url: str = redis_url

        def connect_here() -> Redis:
            return connect(url)

        resumable = settings.scheduler is not None
        dead_after = RESUME_GRACE if resumable else timedelta(0)
        clients = LoopLocal(connect_here)
        handlers = LoopLocal(
            lambda: RedisStreamResponseHandler(
                clients.get(),
                settings.stream_ttl,
                dead_after=dead_after,
                wait_replicas=settings.wait_replicas,
                telemetry=backends.telemetry,
            )
        )
        handler = handlers.get()
        stack.push_async_callback(handler.aclose)
        if embedded is not None and not resumable:
            await _settle_left_over(handler)
        leases = LeaseKeeper(connect_here, settings.stream_ttl, telemetry=backends.telemetry)
        stack.push_async_callback(asyncio.to_thread, leases.close)
        store = None if resumable else EntityStore(connect_here(), settings.conversation_ttl)
        connection = connect_hub(settings.scheduler, store)
        stream = RedisStreamCallback(handlers.get, leases)
        bridges = create_bridges(
            await _with_emulator(bridge_settings, settings, stack),
            settings,
            agents=waits_by_default,
            stream=stream,
            redis=clients.get,
            connect=connect_here,
            reader=lambda: handlers.get().reader,
            telemetry=backends,
        )
        stack.push_async_callback(bridges.aclose)
        hub = DurableAgents(connection, stream)
        agents = [each.agent for each in hosted]
        hub.host(agents, run_timeout=settings.run_timeout, callbacks=bridges.callbacks)
        stack.push_async_callback(hub.close)
        stack.push_async_callback(_stop_runs, leases, handler, resumable=resumable)
        endpoints = Endpoints(
            settings=settings,
            agents=waits_by_default,
            runs=handler.runs,
            reader=handler.reader,
            hub=hub,
            leases=leases,
        )
        note = f"{embedded.kind} on port {embedded.port}" if embedded else "the configured Redis"
        yield Service(create_app(endpoints, (*bridges.routes, *backends.root_routes)), handler, note)


async def _with_emulator(
    bridges: BridgeSettings, settings: Settings, stack: AsyncExitStack
) -> BridgeSettings:
    """Bring a SignalR service where none is set, for clients on this machine."""
    signalr = bridges.signalr
    if signalr.address is not None or settings.host not in _LOOPBACK:
        return bridges
    try:
        key = await asyncio.to_thread(kept_access_key, settings.data_dir / "signalr-emulator.key")
        emulator = SignalREmulator(key, port=signalr.emulator_port)
        await stack.enter_async_context(emulator)
    except (SignalREmulatorError, OSError) as error:
        _log.warning("no push: %s", error)
        return bridges
    _log.info("signalr emulator on %s", emulator.endpoint)
    return replace(bridges, signalr=signalr.at(emulator.connection_string))


async def _settle_left_over(handler: RedisStreamResponseHandler) -> None:
    """End the runs that an earlier process of ours was executing: nobody else can."""
    for state in await handler.runs.unfinished():
        await handler.runs.settle(state, interrupted(), patience=None)
        _log.warning("run ended as interrupted: conversation=%s run=%s", state.conversation_id, state.run)


async def _stop_runs(leases: LeaseKeeper, handler: RedisStreamResponseHandler, *, resumable: bool) -> None:
    """Let runs finish for a moment; then end those that nobody will resume, and let go of the others."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_GRACE.total_seconds()):
            await leases.wait_until_idle()
    for conversation_id, run in leases.running():
        state = await handler.runs.state(conversation_id, run)
        if state is not None and not resumable:
            await handler.runs.settle(state, interrupted(), patience=None)
            _log.warning("run ended as interrupted: conversation=%s run=%s", conversation_id, run)
    leases.stop_all()


class _Server(uvicorn.Server):
    """Lets readers go before it waits for their connections to end."""

    def __init__(self, config: uvicorn.Config, service: Service, base_url: str) -> None:
        super().__init__(config)
        self._service = service
        self._base_url = base_url
        self._loop = asyncio.get_running_loop()
        self._letting_go: asyncio.Task[None] | None = None

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
        self._loop.call_soon_threadsafe(self._let_readers_go)
        super().handle_exit(sig, frame)

    def _let_readers_go(self) -> None:
        self._letting_go = self._loop.create_task(self._service.handler.reader.close())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so in one line with two commands to try."""
        await super().startup(sockets)
        _leave_startup_alone()
        print(_ready_line(self._base_url, self._service.redis_note), flush=True)


def _leave_startup_alone() -> None:
    """Keep the collector from what starting has made: it stays, and to look it through takes 0.2 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *LOOKS)


def _ready_line(base_url: str, redis_note: str) -> str:
    return (
        f"Ready on {base_url} (streams in {redis_note}). Try:\n"
        f'  curl -X POST {base_url}/api/agents/TravelPlanner/run -H "Content-Type: text/plain"'
        ' -d "Plan a 3-day trip to Tokyo"\n'
        f'  curl -N {base_url}/api/agent/stream/CONVERSATION_ID -H "Accept: text/event-stream"'
    )


async def serve(settings: Settings, bridge_settings: BridgeSettings) -> None:
    """Serve until asked to stop.

    Raises:
        SettingsError: the address can't be listened on, or settings do not fit together.
    """
    with listen(settings.host, settings.port) as listener:
        async with run_service(settings, bridge_settings) as service:
            config = uvicorn.Config(
                service.app,
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
            host, port = settings.host, listener.getsockname()[1]
            base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            await _Server(config, service, base_url).serve([listener])


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> int:
    """Run the standalone host. Returns the process's exit status."""
    try:
        settings = Settings.from_environment()
        bridge_settings = BridgeSettings.from_environment()
        configure_logging(settings.log_level, settings.log_format)
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(serve(settings, bridge_settings))
    except SettingsError as error:
        print(f"Can't start: {error.message}", file=sys.stderr)
        return 2
    except StreamingError as error:
        print(f"Can't start: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _exit(status: int) -> None:
    """End the process, also where a tool still blocks a thread that Python would wait for."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    _exit(main())
