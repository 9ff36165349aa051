"""The chat page as routes: a few files, read once, with what a browser needs to keep and to trust them.

Knows nothing of streams: the page is a client of the service like any other (docs/chat.md).
"""

from __future__ import annotations

import gzip
import hashlib
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
        for name in ("chat.js", "conversation.js", "markdown.js", "session.js", "transport.js", "view.js")
    ),
    *(_CLIENT / name for name in ("agent-stream.js", "shared-stream.js")),
)
#: The page runs its own scripts, speaks with its own service, and loads nothing of others: an answer can't
#: run anything, and can't tell anybody that it was read. No text is ever made into HTML (the last two).
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    # Kept, and each time asked whether it is still right: an answer of a few bytes.
    "cache-control": "no-cache",
    "content-security-policy": CONTENT_SECURITY_POLICY,
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
    def read(cls, path: Path) -> _File:
        """Read it once, when the service starts."""
        body, headers = path.read_bytes(), {**_HEADERS, "content-type": _TYPES[path.suffix]}
        packed = gzip.compress(body, mtime=0)
        return cls(
            HttpResponse(200, {**headers, "etag": _etag(body)}, body),
            HttpResponse(200, {**headers, "etag": _etag(packed), "content-encoding": "gzip"}, packed),
        )

    def answer(self, request: HttpRequest) -> HttpResponse:
        """What a client gets; little, if it has the file already."""
        response = self.compressed if "gzip" in request.headers.get("accept-encoding", "") else self.plain
        known = request.headers.get("if-none-match", "")
        if response.headers["etag"] in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            kept = {name: value for name, value in response.headers.items() if name != "content-encoding"}
            return HttpResponse(304, kept)
        return response


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


_page: Final = _File.read(_PAGE)
_files: Final = {path.name: _File.read(path) for path in _FILES}


async def chat_page(_endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
    """``GET /api/index``."""
    return _page.answer(request)


async def chat_root(_endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
    """``GET /``."""
    return _page.answer(request)


async def chat_file(_endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
    """``GET /api/chat/{file}``."""
    file = _files.get(request.path["file"])
    if file is None:
        return json_response(404, {"error": "There is no such file.", "code": "not_found"})
    return file.answer(request)


#: On every host. A page can't send a key before it is there: it asks for nothing.
CHAT_ROUTES: Final = (
    Route("GET", "/api/index", chat_page, Needs.NOTHING),
    Route("GET", "/api/chat/{file}", chat_file, Needs.NOTHING),
)
#: Where the host has the whole of its address; a function app has ``/api`` only.
ROOT_ROUTE: Final = Route("GET", "/", chat_root, Needs.NOTHING)
