"""From Starlette's requests to ours, for both hosts that are given them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from starlette.requests import Request

from streaming.errors import RequestTimedOut, RequestTooLarge
from streaming.http.messages import HttpRequest

#: How long a client may take to send a body: 1 MiB over a bad mobile network.
BODY_PATIENCE: Final = timedelta(seconds=60)


async def read_request(request: Request, body_limit: int) -> HttpRequest:
    """Read a request with its body.

    Raises:
        RequestTooLarge: the body is larger than ``body_limit`` bytes.
        RequestTimedOut: the body did not come in time.
        ClientDisconnect: the client left.
    """
    return HttpRequest(
        path={name: str(value) for name, value in request.path_params.items()},
        query=dict(request.query_params),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await read_body(request, body_limit),
        client=request.client.host if request.client else "",
    )


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body, as far as it is not too large.

    Raises:
        RequestTooLarge: it is larger than ``limit`` bytes, or says that it will be.
        RequestTimedOut: it did not come within ``BODY_PATIENCE``.
        ClientDisconnect: the client left.
    """
    too_large = RequestTooLarge(f"The request body is larger than {limit} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_PATIENCE.total_seconds()):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise RequestTimedOut from None
    return bytes(body)
