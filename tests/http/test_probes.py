"""Liveness and readiness: docs/protocol.md, section 5.6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.service import connect_http, eventually, free_port, running_service
from tests.topologies.servers import start_server, valkey

LIVE = "/api/health/live"
READY = "/api/health/ready"


async def said(http: httpx.AsyncClient, path: str) -> tuple[int, Any]:
    """A probe's status, and what it says."""
    response = await http.get(path)
    return response.status_code, response.json()["status"]


async def test_probes_need_no_key(program: str, tmp_path: Path) -> None:
    """A probe has no key, and is told nothing but its answer; of health, only who has a key hears."""
    with running_service(tmp_path, program=program, API_KEYS="k" * 32, HEALTH_ANONYMOUS="false") as service:
        async with connect_http(service) as http:
            assert await said(http, LIVE) == (200, "live")
            assert await said(http, READY) == (200, "ready")
            assert (await http.get("/api/health")).status_code == 401


async def test_redis_that_is_not_there_yet_and_then_away(program: str, tmp_path: Path) -> None:
    """Requests are wanted from when Redis was first reached; an outage later sends no client away."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    with running_service(tmp_path / "data", program=program, REDIS_CONNECTION_STRING=url) as service:
        async with connect_http(service) as http:
            assert await said(http, READY) == (503, "starting")
            assert await said(http, LIVE) == (200, "live")
            server = start_server(valkey(), tmp_path / "redis", port=port)
            try:

                async def is_ready() -> bool:
                    return await said(http, READY) == (200, "ready")

                await eventually(is_ready, "it has reached Redis")
                assert await said(http, "/api/health") == (200, "healthy")
            finally:
                server.kill()
            assert await said(http, "/api/health") == (503, "unhealthy")
            assert await said(http, READY) == (200, "ready")
            assert await said(http, LIVE) == (200, "live")
