"""All routes that both hosts answer: the contract's core, its bridges, the chat page."""

from __future__ import annotations

from typing import Any, Final

from bridges.telemetry.backends import create_telemetry
from bridges.telemetry.settings import TelemetrySettings
from composition import BridgeSettings, create_bridges
from hosting.callbacks import Callbacks
from streaming.http.routes import Route
from streaming.settings import Settings


def _nothing() -> Any:
    raise AssertionError("no route is answered here")


ALL_ROUTES: Final[tuple[Route, ...]] = create_bridges(
    BridgeSettings(),
    Settings(),
    agents=["TravelPlanner", "CallbackAgent"],
    stream=Callbacks(None),  # type: ignore[arg-type]  # nothing is run
    redis=_nothing,
    connect=_nothing,
    reader=_nothing,
    telemetry=create_telemetry(TelemetrySettings()),
).routes
