"""Composition root for Azure Functions: the same agents, endpoints and streams as the standalone host.

The platform imports this module and asks ``app`` for its functions. There is no logic here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from agents import create_agents
from bridges.telemetry.backends import create_telemetry
from composition import BridgeSettings, create_bridges
from hosting.functions_app import StreamingFunctionApp, choose_http
from hosting.functions_limits import function_timeout, within_platform
from hosting.garbage import GarbageWatch
from hosting.open_files import within_open_files
from hosting.streamable_agent import StreamableAgent
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.http.endpoints import Endpoints
from streaming.http.limits import Load
from streaming.http.task_hub import TaskHub
from streaming.loop_local import LoopLocal
from streaming.reading.liveness import RESUME_GRACE
from streaming.settings import Settings
from streaming.writing.leases import LeaseKeeper

#: Where the published sample looks for Redis, so that its walk-through works unchanged. A function app
#: embeds no Redis of its own: its workers come and go, and several of them read the same streams.
DEFAULT_REDIS_URL: Final = "redis://localhost:6379"

#: The platform reads it before it imports this module.
HOST_JSON: Final = Path(__file__).with_name("host.json")


def create_app(settings: Settings, bridge_settings: BridgeSettings) -> StreamingFunctionApp:
    """Put the function app together. Nothing is connected before its first use.

    Raises:
        SettingsError: settings do not fit together.
    """
    redis_url = settings.redis_url or DEFAULT_REDIS_URL

    def connect_here() -> Redis:
        return connect(redis_url)

    hosted = create_agents(settings.model)
    waits_by_default = {each.agent.name or "": each.waits_by_default for each in hosted}
    backends = create_telemetry(bridge_settings.telemetry, waits_by_default, is_platforms=True)

    # The worker serves requests on one event loop, and the agents run on another.
    clients = LoopLocal(connect_here)
    handlers = LoopLocal(
        lambda: RedisStreamResponseHandler(
            clients.get(),
            settings.stream_ttl,
            dead_after=RESUME_GRACE,
            wait_replicas=settings.wait_replicas,
            telemetry=backends.telemetry,
        )
    )
    leases = LeaseKeeper(connect_here, settings.stream_ttl, telemetry=backends.telemetry)
    GarbageWatch(leases.keeps_runs).start()
    stream = RedisStreamCallback(handlers.get, leases)
    bridges = create_bridges(
        bridge_settings,
        settings,
        agents=waits_by_default,
        stream=stream,
        redis=clients.get,
        connect=connect_here,
        reader=lambda: handlers.get().reader,
        telemetry=backends,
    )
    load = Load()

    def endpoints(hub: TaskHub) -> Endpoints:
        handler = handlers.get()
        return Endpoints(
            settings=settings,
            agents=waits_by_default,
            runs=handler.runs,
            reader=handler.reader,
            hub=hub,
            leases=leases,
            load=load,
        )

    return StreamingFunctionApp(
        agents=[StreamableAgent(each.agent, settings.run_timeout) for each in hosted],
        callback=stream,
        endpoints=endpoints,
        http=choose_http(settings.max_request_bytes),
        access=settings.access,
        routes=bridges.routes,
        callbacks=bridges.callbacks,
    )


app = create_app(
    within_open_files(within_platform(Settings.from_environment(), function_timeout(HOST_JSON, os.environ))),
    BridgeSettings.from_environment(),
)
