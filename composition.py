"""What both composition roots put around the stream: callback telemetry, push, pages, metrics and traces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from agent_framework_durabletask import AgentResponseCallbackProtocol
from redis.asyncio import Redis

from bridges.audit_trail.audit_trail import create_audit_trail
from bridges.audit_trail.settings import AuditTrailSettings, StoreKind
from bridges.signalr.push import SignalRPush, create_push
from bridges.signalr.settings import SignalRSettings
from bridges.telemetry.backends import TelemetryBackends
from bridges.telemetry.settings import TelemetrySettings
from chat.routes import chat_routes
from hosting.callbacks import Callbacks
from inspector.routes import inspect_routes
from streaming.environment import Environment
from streaming.errors import SettingsError
from streaming.http.routes import ROUTES, Route
from streaming.reading.reader import StreamReader
from streaming.settings import Settings


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """The bridges' settings."""

    trail: AuditTrailSettings = field(default_factory=AuditTrailSettings)
    signalr: SignalRSettings = field(default_factory=SignalRSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> BridgeSettings:
        """Read the settings.

        Raises:
            SettingsError: a value can't be used; its message names the setting, the value and the remedy.
        """
        env = Environment(os.environ if environment is None else environment)
        return cls(AuditTrailSettings.read(env), SignalRSettings.read(env), TelemetrySettings.read(env))


@dataclass(frozen=True, slots=True)
class Bridges:
    """What a host needs of them."""

    #: By an agent's name, what is told of its updates.
    callbacks: Mapping[str, AgentResponseCallbackProtocol]
    #: All that the host answers.
    routes: tuple[Route, ...]
    #: Origins that a page has to reach for its pushes.
    connect_to: tuple[str, ...]
    _push: SignalRPush

    async def aclose(self) -> None:
        """End their work, and close the running loop's connections."""
        await self._push.aclose()


def create_bridges(
    settings: BridgeSettings,
    service: Settings,
    *,
    agents: Iterable[str],
    stream: AgentResponseCallbackProtocol,
    redis: Callable[[], Redis],
    connect: Callable[[], Redis],
    reader: Callable[[], StreamReader],
    telemetry: TelemetryBackends,
) -> Bridges:
    """Put them together. Nothing is connected before its first use.

    Args:
        settings: Theirs.
        service: The host's.
        agents: The hosted agents' names.
        stream: Writes runs into their streams; observers come after it.
        redis: The running loop's client.
        connect: Makes another client for the running loop.
        reader: The running loop's reader of streams.
        telemetry: Made before the stream was, which tells it what happens.

    Raises:
        SettingsError: settings do not fit together, or an agent that is to be observed is not there.
    """
    names = list(agents)
    settings.trail.check_agents(names)
    if service.workers > 1 and settings.trail.store is StoreKind.MEMORY:
        raise SettingsError(
            "AUDIT_TRAIL_STORE", f"memory, which the {service.workers} WORKERS do not share: set it to redis."
        )
    trail = create_audit_trail(settings.trail, redis, service.run_timeout)
    push = create_push(settings.signalr, service.access, reader=reader, connect=connect)
    told = Callbacks(stream, *push.observers)
    observed = Callbacks(stream, *push.observers, trail.callback)
    callbacks = {name: observed if settings.trail.observes(name) else told for name in names}
    address = settings.signalr.address
    connect_to = () if address is None else address.client_origins
    pages = (*chat_routes(connect_to), *inspect_routes(service))
    routes = (*ROUTES, *trail.routes, *push.routes, *pages, *telemetry.routes)
    return Bridges(callbacks, routes, connect_to, push)
