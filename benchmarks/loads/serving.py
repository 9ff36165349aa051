"""What the HTTP servers of the contestants in Python have in common: uvicorn, as this project uses it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.loads.pacing import say

#: Connections that wait to be accepted.
BACKLOG: Final = 4_096


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


def _say_ready() -> None:
    say("ready")


async def serve(app: ASGIApp, port: int, listening: Callable[[], None] = _say_ready) -> None:
    """Serve on 127.0.0.1; calls ``listening`` when it does, or says ``ready``."""
    config = uvicorn.Config(
        app,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
    )
    await _Server(config, listening).serve()


def serve_events(events: Callable[[str], AsyncIterator[str]], port: int) -> None:
    """Serve ``/stream/{name}`` as Starlette's tutorials do: a response over what ``events(name)`` yields."""

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(events(request.path_params["name"]), media_type="text/event-stream")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Starlette(routes=[Route("/stream/{name}", stream)]), port))
