"""When a service wants no requests any more."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest
from streaming.settings import Settings


async def nothing() -> bool:
    return True


@pytest.mark.parametrize(("stops", "expected"), [(False, (200, "ready")), (True, (503, "stopping"))])
async def test_a_service_that_stops_is_not_ready(*, stops: bool, expected: tuple[int, str]) -> None:
    """From when its readers are sent away, a gateway is to send others elsewhere."""
    parts: dict[str, Any] = {
        "runs": SimpleNamespace(ping=nothing),
        "reader": SimpleNamespace(closed=stops),
        "hub": SimpleNamespace(is_healthy=nothing),
        "leases": SimpleNamespace(),
    }
    response = await Endpoints(settings=Settings(), agents={}, **parts).ready(HttpRequest())
    assert isinstance(response.body, bytes)
    assert (response.status, json.loads(response.body)["status"]) == expected
