"""The routes that both hosts answer, those of the chat page among them."""

from __future__ import annotations

from typing import Final

from chat.routes import CHAT_ROUTES
from streaming.http.routes import ROUTES, Route

ALL_ROUTES: Final[tuple[Route, ...]] = (*ROUTES, *CHAT_ROUTES)
