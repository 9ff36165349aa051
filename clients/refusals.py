"""HTTP answers that are no success: what passes by itself, and the typed error of what does not."""

from __future__ import annotations

import json
import ssl
from typing import Any, Final

import httpx

from clients.errors import (
    AccessDenied,
    AgentNotFound,
    ConversationNotFound,
    InvalidCursor,
    InvalidRequest,
    NotFound,
    RequestRefused,
    RunNotFound,
    TokenExpired,
    UnexpectedAnswer,
)
from clients.patience import Trouble, parse_retry_after

#: Statuses of a service, or of a proxy before it, that is away for the moment.
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
#: More of an error's body is not read, in bytes: the service's own have a few hundred.
_ERROR_LIMIT: Final = 65_536
#: More of an answer is not read, in bytes: a status holds the run's whole text.
_ANSWER_LIMIT: Final = 64 * 1024 * 1024
_BY_CODE: Final[dict[str, type[RequestRefused]]] = {
    "agent_not_found": AgentNotFound,
    "conversation_not_found": ConversationNotFound,
    "invalid_cursor": InvalidCursor,
    "run_not_found": RunNotFound,
    "token_expired": TokenExpired,
}
_BY_STATUS: Final[dict[int, type[RequestRefused]]] = {
    400: InvalidRequest,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
}


async def read_json(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer that is still open; an empty one where it is something else."""
    limit = _ANSWER_LIMIT if response.is_success else _ERROR_LIMIT
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > limit:
            return {}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


async def judge(response: httpx.Response, cursor: str | None = None) -> Trouble:
    """Say why the request has to be sent again.

    Raises:
        RequestRefused: sending it again would change nothing. It carries ``cursor``.
    """
    content = await read_json(response)
    status = response.status_code
    code = str(content.get("code") or f"http_{status}")
    message = content.get("error")
    if status in _PASSING:
        return Trouble(
            f"it answered {status} ({code})", parse_retry_after(response.headers.get("retry-after"))
        )
    if not isinstance(message, str) or not message:
        message = f"{_named(response)} answered {status}, and not in this protocol's words."
        if status not in (401, 403):
            raise UnexpectedAnswer(message, code=code, http_status=status, cursor=cursor)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or RequestRefused
    raise kind(message, code=code, http_status=status, cursor=cursor)


def unexpected(response: httpx.Response, expected: str) -> UnexpectedAnswer:
    """An answer of another kind than this protocol's."""
    message = f"{_named(response)} answered with something else than {expected}: is base_url the service?"
    return UnexpectedAnswer(message, code="unexpected_answer", http_status=response.status_code)


def _named(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}"


def describe(error: httpx.RequestError) -> str:
    """What happened to a connection, in words for people."""
    match error:
        case httpx.ConnectTimeout():
            return "it does not answer"
        case httpx.ReadTimeout():
            return "the connection was silent for too long"
        case httpx.ConnectError():
            return "there is no connection to it"
        case httpx.PoolTimeout():
            return "too many of this client's streams are open"
    return f"the connection broke ({type(error).__name__})"


def is_permanent(error: BaseException) -> bool:
    """Whether trying again is of no use: the service's certificate is not trusted."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
