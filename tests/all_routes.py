"""The routes that both hosts answer, those of bridges among them."""

from __future__ import annotations

from typing import Any, Final

from bridges.signalr.push import create_push
from bridges.signalr.settings import SignalRSettings
from streaming.access_settings import AccessSettings
from streaming.http.routes import ROUTES, Route


def _nothing() -> Any:
    raise AssertionError("no route is answered here")


PUSH_ROUTES: Final = create_push(
    SignalRSettings(), AccessSettings(), reader=_nothing, connect=_nothing
).routes

ALL_ROUTES: Final[tuple[Route, ...]] = (*ROUTES, *PUSH_ROUTES)
