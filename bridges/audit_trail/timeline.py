"""The page that shows a trail as a timeline: one file that loads nothing but the trail."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from streaming.http.messages import HttpResponse
from streaming.http.pages import whole_page

_RESPONSE: Final = whole_page(Path(__file__).with_name("page"), "timeline")


def timeline_response() -> HttpResponse:
    """The page, the same for all trails: which one it shows is in its address."""
    return _RESPONSE
