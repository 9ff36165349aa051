"""The chat page as routes: a few files, read once, with what a browser needs to keep and to trust them.

Knows nothing of streams: the page is a client of the service like any other (docs/chat.md).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streaming.http.access import Needs
from streaming.http.endpoints import Endpoints
from streaming.http.messages import TEXT_TYPE, HttpRequest, HttpResponse, json_response
from streaming.http.routes import Route

_ASSETS: Final = Path(__file__).parent / "assets"
_CLIENT: Final = Path(__file__).parents[1] / "clients" / "javascript"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": TEXT_TYPE,
}
_PAGE: Final = _ASSETS / "index.html"
#: What is served below ``/api/chat/``, by its file's name: nothing else that may lie in these folders.
_FILES: Final = (
    *(_ASSETS / name for name in ("chat.css", "icon.svg", "marked.js", "marked.LICENSE.txt")),
    *(
        _ASSETS / name
        for name in ("chat.js", "choice.js", "conversation.js", "markdown.js", "session.js", "view.js")
    ),
    *(_ASSETS / name for name in ("transport.js", "hub.js", "push.js")),
    # Asked for only where push was chosen.
    *(_ASSETS / name for name in ("signalr.js", "signalr.LICENSE.txt")),
    *(_CLIENT / name for name in ("agent-stream.js", "shared-stream.js")),
)


def chat_routes(connect_to: Iterable[str] = ()) -> tuple[Route, ...]:
    """The page and its files, on every host. A page can't send a key before it is there: it asks for nothing.

    Args:
        connect_to: Origins that the page may reach besides its own service, as
            ``https://name.service.signalr.net``: the push service's, where there is one.
    """
    policy = content_security_policy(connect_to)
    page = _Page(_File.read(_PAGE, policy))
    files = _Files({path.name: _File.read(path, policy) for path in _FILES})
    return (
        Route("GET", "/api/index", page.chat_page, Needs.NOTHING),
        Route("GET", "/api/chat/{file}", files.chat_file, Needs.NOTHING),
    )


def root_route(connect_to: Iterable[str] = ()) -> Route:
    """The page once more, where the host has the whole of its address; a function app has ``/api`` only."""
    page = _Page(_File.read(_PAGE, content_security_policy(connect_to)))
    return Route("GET", "/", page.chat_root, Needs.NOTHING)


def content_security_policy(connect_to: Iterable[str] = ()) -> str:
    """What the page may do.

    It runs its own scripts, speaks with its own service and the push service, and loads nothing of others: an
    answer can't run anything, and can't tell anybody that it was read. No text is ever made into HTML (the
    last two).
    """
    reachable = " ".join(("'self'", *connect_to))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src {reachable}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _headers(policy: str) -> dict[str, str]:
    return {
        # Kept, and each time asked whether it is still right: an answer of a few bytes.
        "cache-control": "no-cache",
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is sent: as it is, or compressed."""

    plain: HttpResponse
    compressed: HttpResponse

    @classmethod
    def read(cls, path: Path, policy: str) -> _File:
        """Read it once, when the service starts."""
        body, headers = path.read_bytes(), {**_headers(policy), "content-type": _TYPES[path.suffix]}
        packed = gzip.compress(body, mtime=0)
        return cls(
            HttpResponse(200, {**headers, "etag": _etag(body, policy)}, body),
            HttpResponse(200, {**headers, "etag": _etag(packed, policy), "content-encoding": "gzip"}, packed),
        )

    def answer(self, request: HttpRequest) -> HttpResponse:
        """What a client gets; little, if it has the file already."""
        response = self.compressed if "gzip" in request.headers.get("accept-encoding", "") else self.plain
        known = request.headers.get("if-none-match", "")
        if response.headers["etag"] in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            kept = {name: value for name, value in response.headers.items() if name != "content-encoding"}
            return HttpResponse(304, kept)
        return response


def _etag(body: bytes, policy: str) -> str:
    # Of the policy too: a browser that is told that nothing has changed may keep the one that it has.
    return f'"{hashlib.sha256(policy.encode() + body).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class _Page:
    """The page itself."""

    file: _File

    async def chat_page(self, _endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``GET /api/index``."""
        return self.file.answer(request)

    async def chat_root(self, _endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``GET /``."""
        return self.file.answer(request)


@dataclass(frozen=True, slots=True)
class _Files:
    """What it is made of."""

    by_name: Mapping[str, _File]

    async def chat_file(self, _endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``GET /api/chat/{file}``."""
        file = self.by_name.get(request.path["file"])
        if file is None:
            return json_response(404, {"error": "There is no such file.", "code": "not_found"})
        return file.answer(request)
