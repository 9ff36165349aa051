"""How routes answer when something goes wrong, and which trace their answers name."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from redis.exceptions import RedisError

from streaming.errors import StreamingError, StreamUnavailable
from streaming.http.messages import HttpRequest, HttpResponse, error_response
from streaming.store.trouble import describe
from streaming.telemetry import Span, Telemetry

_log = logging.getLogger(__name__)

#: W3C Trace Context: https://www.w3.org/TR/trace-context/. The answer's names the request's own span.
TRACE_HEADER: Final = "traceparent"

Endpoint = Callable[[HttpRequest], Awaitable[HttpResponse]]


def traced(response: HttpResponse, span: Span) -> HttpResponse:
    """Tell the client which trace its request is in."""
    if not span.traceparent:
        return response
    return replace(response, headers={**response.headers, TRACE_HEADER: span.traceparent})


async def answering(answer: Endpoint, request: HttpRequest, telemetry: Telemetry) -> HttpResponse:
    """Turn errors into answers; nothing of an unexpected one is shown."""
    try:
        return await answer(request)
    except StreamingError as error:
        return error_response(error)
    except RedisError as error:
        described = describe(error)
        if isinstance(described, StreamUnavailable):
            telemetry.redis_failed("request", error)
        return error_response(described)
    except Exception as error:  # noqa: BLE001 - the last resort: a client gets an answer, and no detail
        _log.error("request failed: error=%s", type(error).__name__)
        _log.debug("request failure", exc_info=True)
        return error_response(StreamingError("The request failed. Its cause is in the service's log."))
