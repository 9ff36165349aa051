"""The routes of the HTTP contract, the same on every host: docs/protocol.md, section 5.

A composition root may add routes of other parts to ``ROUTES``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from streaming.errors import TooManyStreams
from streaming.http.access import Needs
from streaming.http.answering import answering
from streaming.http.endpoints import RUN_ROUTE, STREAM_HEADERS, STREAM_ROUTE, Endpoints
from streaming.http.limits import CountedBody
from streaming.http.messages import HttpRequest, HttpResponse
from streaming.sse import encode_retry

#: An ``EventSource`` that finds the service full comes back after this, in milliseconds: places become free
#: when answers end, which takes longer than a failover.
FULL_RETRY_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Route:
    """One route. Starlette and Azure Functions write the variable parts of a path alike."""

    method: str
    path: str
    #: Given the endpoints of the event loop that serves the request. Its name is the route's.
    endpoint: Callable[[Endpoints, HttpRequest], Awaitable[HttpResponse]]
    #: What it wants of its client, where keys or tokens are set.
    needs: Needs = Needs.KEY
    #: Whether it answers with a stream, of which there may be so many.
    streams: bool = False

    @property
    def name(self) -> str:
        """What it does, in a word; unique among the routes."""
        return self.endpoint.__name__

    async def answer(self, endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """Let the request in and do what the route does; or refuse it."""

        async def admitted(request: HttpRequest) -> HttpResponse:
            endpoints.access.check(self.needs, request)
            if self.streams:
                return await self._counted(endpoints, request)
            return await self.endpoint(endpoints, request)

        response = await answering(admitted, request, endpoints.telemetry)
        endpoints.telemetry.answered(self.name, response.status)
        return response

    async def _counted(self, endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """Answer with a stream that has a place among the open ones for as long as it lasts."""
        try:
            place = endpoints.load.take_stream(request.client, endpoints.settings.limits)
        except TooManyStreams:
            if not request.is_event_source_reconnect:
                raise
            return HttpResponse(200, STREAM_HEADERS, encode_retry(FULL_RETRY_MS))
        try:
            response = await self.endpoint(endpoints, request)
        except BaseException:
            place.give_back()
            raise
        if isinstance(response.body, AsyncGenerator):
            return replace(response, body=CountedBody(response.body, place))
        place.give_back()
        return response


ROUTES: Final = (
    Route("POST", RUN_ROUTE, Endpoints.run, Needs.JOINING),
    Route("GET", "/api/agents/{agent}/run/{conversation_id}", Endpoints.status, Needs.CONVERSATION),
    Route("DELETE", "/api/agents/{agent}/run/{conversation_id}", Endpoints.cancel, Needs.CONVERSATION),
    Route("GET", STREAM_ROUTE, Endpoints.stream, Needs.CONVERSATION, streams=True),
    Route("GET", "/api/health", Endpoints.health, Needs.HEALTH),
    Route("GET", "/api/health/live", Endpoints.live, Needs.NOTHING),
    Route("GET", "/api/health/ready", Endpoints.ready, Needs.NOTHING),
    Route("GET", "/api/openapi.json", Endpoints.openapi, Needs.NOTHING),
)
