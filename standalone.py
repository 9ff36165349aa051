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
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

if __name__ == "__main__":
    # Importing makes much and leaves no garbage; to look for it takes a sixth of the time to start. The
    # server lets the collector go on.
    gc.disable()

from redis.asyncio import Redis
from starlette.applications import Starlette

from agents import HostedAgent, create_agents
from bridges.signalr.settings import CONNECTION_STRING
from bridges.telemetry.backends import TelemetryBackends, create_telemetry
from chat.routes import root_route
from composition import Bridges, BridgeSettings, create_bridges
from hosting.asgi import create_app
from hosting.durable_agents import DurableAgents, DurableAgentsClient, connect_client, connect_hub
from hosting.embedded.entity_store import EntityStore
from hosting.embedded.redis_server import EmbeddedRedis
from hosting.listener import listen, listen_together
from hosting.log_format import configure_logging
from hosting.open_files import within_open_files
from hosting.server import Server, new_loop
from hosting.worker_processes import WorkerNotStarted, WorkerPlace, WorkerProcesses, stop_when_orphaned
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from signalr_emulator.server import SignalREmulator, SignalREmulatorError, kept_access_key
from streaming.cancellation import cancel_and_wait
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

#: Whoever reaches the service at one of these is on this machine, and reaches the emulator too.
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Service:
    """The running parts that the server needs."""

    app: Starlette
    handler: RedisStreamResponseHandler
    leases: LeaseKeeper
    #: Where streams are kept, for people.
    redis_note: str = ""
    #: Where the embedded task hub is; empty where there is a scheduler.
    task_hub: str = ""
    #: What other processes that serve the same need set.
    shared_settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What every process of the service has."""

    settings: Settings
    hosted: Sequence[HostedAgent]
    connect: Callable[[], Redis]
    #: The running event loop's client and handler.
    clients: LoopLocal[Redis]
    handlers: LoopLocal[RedisStreamResponseHandler]
    leases: LeaseKeeper
    telemetry: TelemetryBackends

    @property
    def callback(self) -> RedisStreamCallback:
        """Writes runs into their streams."""
        return RedisStreamCallback(self.handlers.get, self.leases)

    def bridges(self, settings: BridgeSettings, stream: RedisStreamCallback) -> Bridges:
        """What is put around the stream."""
        return create_bridges(
            settings,
            self.settings,
            agents=[each.agent.name or "" for each in self.hosted],
            stream=stream,
            redis=self.clients.get,
            connect=self.connect,
            reader=lambda: self.handlers.get().reader,
            telemetry=self.telemetry,
        )

    def app(self, hub: DurableAgentsClient, bridges: Bridges) -> Starlette:
        """What the server serves."""
        handler = self.handlers.get()
        endpoints = Endpoints(
            settings=self.settings,
            agents={each.agent.name or "": each.waits_by_default for each in self.hosted},
            runs=handler.runs,
            reader=handler.reader,
            hub=hub,
            leases=self.leases,
        )
        root = root_route(bridges.connect_to)
        return create_app(endpoints, (*bridges.routes, root, *self.telemetry.root_routes))


@asynccontextmanager
async def run_service(settings: Settings, bridge_settings: BridgeSettings) -> AsyncIterator[Service]:
    """Everything but the server, while inside.

    Raises:
        SettingsError: settings do not fit together.
    """
    async with AsyncExitStack() as stack:
        embedded = None
        redis_url = settings.redis_url
        if redis_url is None:
            embedded = EmbeddedRedis(settings.data_dir, port=settings.embedded_redis_port)
            await stack.enter_async_context(embedded)
            redis_url = embedded.url
        resumable = settings.scheduler is not None
        parts = _parts(settings, bridge_settings, redis_url, stack)
        handler = parts.handlers.get()
        if embedded is not None and not resumable:
            await _settle_left_over(handler)
        store = None if resumable else EntityStore(parts.connect(), settings.conversation_ttl)
        connection = connect_hub(settings.scheduler, store)
        stream = parts.callback
        brought = await _emulator(bridge_settings, settings, stack)
        for connection_string in brought.values():
            signalr = bridge_settings.signalr.at(connection_string)
            bridge_settings = replace(bridge_settings, signalr=signalr)
        bridges = parts.bridges(bridge_settings, stream)
        stack.push_async_callback(bridges.aclose)
        hub = DurableAgents(connection, stream)
        hub.host(
            [each.agent for each in parts.hosted],
            run_timeout=settings.run_timeout,
            callbacks=bridges.callbacks,
        )
        stack.push_async_callback(hub.close)
        stack.push_async_callback(_stop_runs, parts.leases, handler, resumable=resumable)
        yield Service(
            app=parts.app(hub, bridges),
            handler=handler,
            leases=parts.leases,
            redis_note=f"{embedded.kind} on port {embedded.port}" if embedded else "the configured Redis",
            task_hub=connection.address or "",
            shared_settings={"REDIS_CONNECTION_STRING": redis_url, **brought},
        )


@asynccontextmanager
async def run_worker(
    settings: Settings, bridge_settings: BridgeSettings, place: WorkerPlace
) -> AsyncIterator[Service]:
    """The same, of a process that serves beside the one that executes agents."""
    async with AsyncExitStack() as stack:
        parts = _parts(settings, bridge_settings, settings.redis_url or "", stack)
        handler = parts.handlers.get()
        hub = DurableAgentsClient(connect_client(settings.scheduler, place.task_hub))
        stack.push_async_callback(hub.close)
        bridges = parts.bridges(bridge_settings, parts.callback)
        stack.push_async_callback(bridges.aclose)
        yield Service(parts.app(hub, bridges), handler, parts.leases)


def _parts(
    settings: Settings, bridge_settings: BridgeSettings, redis_url: str, stack: AsyncExitStack
) -> _Parts:
    hosted = create_agents(settings.model)
    backends = create_telemetry(bridge_settings.telemetry, [each.agent.name or "" for each in hosted])
    stack.push_async_callback(backends.aclose)
    dead_after = RESUME_GRACE if settings.scheduler is not None else timedelta(0)

    def connect_here() -> Redis:
        return connect(redis_url)

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
    stack.push_async_callback(handlers.get().aclose)
    leases = LeaseKeeper(connect_here, settings.stream_ttl, telemetry=backends.telemetry)
    stack.push_async_callback(asyncio.to_thread, leases.close)
    return _Parts(settings, hosted, connect_here, clients, handlers, leases, backends)


async def _emulator(bridges: BridgeSettings, settings: Settings, stack: AsyncExitStack) -> dict[str, str]:
    """Bring a SignalR service where none is set, for clients on this machine; the setting that names it."""
    if bridges.signalr.address is not None or settings.host not in _LOOPBACK:
        return {}
    try:
        key = await asyncio.to_thread(kept_access_key, settings.data_dir / "signalr-emulator.key")
        emulator = SignalREmulator(key, port=bridges.signalr.emulator_port)
        await stack.enter_async_context(emulator)
    except (SignalREmulatorError, OSError) as error:
        _log.warning("no push: %s", error)
        return {}
    _log.info("signalr emulator on %s", emulator.endpoint)
    return {CONNECTION_STRING[0]: emulator.connection_string}


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


def _ready_line(base_url: str, redis_note: str) -> str:
    return (
        f"Ready on {base_url} (streams in {redis_note}). Try:\n"
        f"  {base_url}/ in a browser\n"
        f'  curl -X POST {base_url}/api/agents/TravelPlanner/run -H "Content-Type: text/plain"'
        ' -d "Plan a 3-day trip to Tokyo"\n'
        f'  curl -N {base_url}/api/agent/stream/CONVERSATION_ID -H "Accept: text/event-stream"'
    )


async def serve(settings: Settings, bridge_settings: BridgeSettings) -> None:
    """Serve until asked to stop.

    Raises:
        SettingsError: the address can't be listened on, or settings do not fit together.
        WorkerNotStarted: another process that is to serve too does not start.
    """
    async with AsyncExitStack() as stack:
        listeners = _listeners(settings)
        for listener in listeners:
            stack.enter_context(listener)
        own, *others = listeners
        settings = within_open_files(settings)
        # Before all else: gRPC, once it runs, does not like forks.
        workers = await stack.enter_async_context(WorkerProcesses(others))
        service = await stack.enter_async_context(run_service(settings, bridge_settings))
        # They need what it has, to the end.
        stack.push_async_callback(workers.stop)
        await workers.begin(task_hub=service.task_hub, settings=service.shared_settings)

        async def let_readers_go() -> None:
            workers.ask_to_stop()
            await service.handler.reader.close()

        host, port = settings.host, own.getsockname()[1]
        ready = _ready_line(f"http://{f'[{host}]' if ':' in host else host}:{port}", service.redis_note)
        server = Server(
            service.app,
            settings,
            let_readers_go=let_readers_go,
            on_ready=lambda: print(ready, flush=True),
            executes_runs=service.leases.keeps_runs,
        )
        await server.serve([own])


def _listeners(settings: Settings) -> list[socket.socket]:
    if settings.workers == 1:
        return [listen(settings.host, settings.port)]
    return listen_together(settings.host, settings.port, settings.workers)


async def serve_beside(settings: Settings, bridge_settings: BridgeSettings, place: WorkerPlace) -> None:
    """Serve what another process executes, until asked to stop or that process has ended."""
    settings = within_open_files(settings)
    with place.listener:
        async with run_worker(settings, bridge_settings, place) as service:
            server = Server(
                service.app,
                settings,
                let_readers_go=service.handler.reader.close,
                on_ready=place.serving,
                executes_runs=service.leases.keeps_runs,
            )
            watch = asyncio.create_task(stop_when_orphaned(place, server.stop), name="orphan-watch")
            try:
                await server.serve([place.listener])
            finally:
                await cancel_and_wait([watch])


def main() -> int:
    """Run the standalone host. Returns the process's exit status."""
    try:
        place = WorkerPlace.take()
        environment = {**os.environ, **(place.settings if place else {})}
        settings = Settings.from_environment(environment)
        bridge_settings = BridgeSettings.from_environment(environment)
        configure_logging(settings.log_level, settings.log_format)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            if place is None:
                runner.run(serve(settings, bridge_settings))
            else:
                runner.run(serve_beside(settings, bridge_settings, place))
    except SettingsError as error:
        print(f"Can't start: {error.message}", file=sys.stderr)
        return 2
    except StreamingError as error:
        print(f"Can't start: {error.message}", file=sys.stderr)
        return 1
    except WorkerNotStarted:
        print("Can't start: a worker process ended at once; what it said is above.", file=sys.stderr)
        return 1
    except (EOFError, KeyboardInterrupt):
        return 0
    return 0


def _exit(status: int) -> None:
    """End the process, also where a tool still blocks a thread that Python would wait for."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    _exit(main())
