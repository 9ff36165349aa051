"""From Starlette's requests to ours, for both hosts that are given them."""

from __future__ import annotations

from starlette.requests import Request

from streaming.errors import RequestTooLarge
from streaming.http.messages import HttpRequest


async def read_request(request: Request, body_limit: int) -> HttpRequest:
    """Read a request with its body.

    Raises:
        RequestTooLarge: the body is larger than ``body_limit`` bytes.
        ClientDisconnect: the client left.
    """
    return HttpRequest(
        path={name: str(value) for name, value in request.path_params.items()},
        query=dict(request.query_params),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await read_body(request, body_limit),
    )


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body, as far as it is not too large.

    Raises:
        RequestTooLarge: it is larger than ``limit`` bytes, or says that it will be.
        ClientDisconnect: the client left.
    """
    too_large = RequestTooLarge(f"The request body is larger than {limit} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)
