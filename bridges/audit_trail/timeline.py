"""The page that shows a trail as a timeline: one file that loads nothing but the trail."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from streaming.http.messages import HttpResponse

_FOLDER: Final = Path(__file__).with_name("page")


def timeline_response() -> HttpResponse:
    """The page, the same for all trails: which one it shows is in its address."""
    return _RESPONSE


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


def _compose() -> HttpResponse:
    style, script = _read("timeline.css"), _read("timeline.js")
    page = _read("timeline.html").replace("{{style}}", style).replace("{{script}}", script)
    # Nothing runs but exactly this script, and it reaches nothing but its own service.
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        # Its address may hold a token.
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return HttpResponse(200, headers, page.encode())


def _digest(text: str) -> str:
    """As a content security policy names what may run: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


#: Read when the module is loaded: no request waits for a file.
_RESPONSE: Final = _compose()
