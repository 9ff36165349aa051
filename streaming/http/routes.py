"""The routes of the HTTP contract, the same on every host: docs/protocol.md, section 5."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest, HttpResponse


@dataclass(frozen=True, slots=True)
class Route:
    """One route. Starlette and Azure Functions write the variable parts of a path alike."""

    method: str
    path: str
    endpoint: Callable[[Endpoints, HttpRequest], Awaitable[HttpResponse]]

    @property
    def name(self) -> str:
        """What it does, in a word; unique among the routes."""
        return self.endpoint.__name__


ROUTES: Final = (
    Route("POST", "/api/agents/{agent}/run", Endpoints.run),
    Route("GET", "/api/agents/{agent}/run/{conversation_id}", Endpoints.status),
    Route("DELETE", "/api/agents/{agent}/run/{conversation_id}", Endpoints.cancel),
    Route("GET", "/api/agent/stream/{conversation_id}", Endpoints.stream),
    Route("GET", "/api/health", Endpoints.health),
)
