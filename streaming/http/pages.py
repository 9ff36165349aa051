"""Pages of one file that load nothing but what their own service tells them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from streaming.http.messages import HttpResponse


def whole_page(
    folder: Path, name: str, *, directives: tuple[str, ...] = (), headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Put a page together; when the module is loaded, so that no request waits for a file.

    Nothing runs but exactly its script, and it reaches nothing but its own service.

    Args:
        folder: Where ``name.html``, ``.css`` and ``.js`` are; the first has places for the others.
        name: Of the page.
        directives: More of the content security policy: https://www.w3.org/TR/CSP3/.
        headers: More of the response.
    """
    style, script = _read(folder / f"{name}.css"), _read(folder / f"{name}.js")
    page = _read(folder / f"{name}.html").replace("{{style}}", style).replace("{{script}}", script)
    policy = (
        "default-src 'none'",
        f"script-src {_digest(script)}",
        f"style-src {_digest(style)}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        *directives,
    )
    return HttpResponse(
        200,
        {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": "; ".join(policy),
            "x-content-type-options": "nosniff",
            # Its address may hold a key or a token.
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
            **(headers or {}),
        },
        page.encode(),
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    """As a content security policy names what may run: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
