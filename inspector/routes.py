"""The inspector as a page for developers: routes that a composition root adds where ``INSPECT_PAGE`` is set.

They show whose runs there are, and what was said if they are asked to: so each of them needs a key. They are
no part of the wire contract, and may change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from inspector.examination import examine
from inspector.recording import record_from_redis
from inspector.reports import conversation_json, list_json
from inspector.trouble import explain
from streaming.http.access import Needs
from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest, HttpResponse, json_response, parse_flag
from streaming.http.pages import whole_page
from streaming.http.routes import Route
from streaming.identifiers import check_conversation_id
from streaming.settings import Settings

#: Conversations that the page lists.
LISTED: Final = 200
#: Keys of each server that are looked at for them: a tenth of a second's work. The command looks at more.
MOST_KEYS: Final = 5_000
#: Entries of a stream that the page looks at: some hundred milliseconds' work. The command looks at all.
MOST_ENTRIES: Final = 20_000
_NO_STORE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


async def inspect_page(_endpoints: Endpoints, _request: HttpRequest) -> HttpResponse:
    """``GET /api/inspect``."""
    return _PAGE


async def inspect_conversations(endpoints: Endpoints, _request: HttpRequest) -> HttpResponse:
    """``GET /api/inspect/conversations``."""
    conversations = endpoints.runs.conversations
    try:
        found = await conversations.find(most_keys=MOST_KEYS)
        glances = await conversations.glance(found.conversation_ids)
        now = await conversations.now()
    except RedisError as error:
        raise explain(error) from error
    glances.sort(key=lambda glance: glance.latest, reverse=True)
    listed = [list_json(glance, now) for glance in glances[:LISTED]]
    is_whole = found.is_whole and len(glances) <= LISTED
    return json_response(200, {"conversations": listed, "is_whole": is_whole}, _NO_STORE)


async def inspect_conversation(endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
    """``GET /api/inspect/conversations/{conversation_id}``; ``text=true``: with what was said."""
    conversation_id = check_conversation_id(request.path["conversation_id"])
    with_text = parse_flag("text", request.query.get("text") or False)
    recording = await record_from_redis(endpoints.runs.conversations, conversation_id)
    examined = await examine(recording, keep_said=with_text, most=MOST_ENTRIES)
    content = conversation_json(recording.stored, examined.runs, examined.findings, with_text=with_text)
    return json_response(200, {**content, "is_whole": examined.is_whole}, _NO_STORE)


_PAGE: Final = whole_page(
    Path(__file__).with_name("page"),
    "inspect",
    # Its script makes no markup.
    directives=("require-trusted-types-for 'script'", "trusted-types 'none'"),
    headers={"cross-origin-opener-policy": "same-origin"},
)

INSPECT_ROUTES: Final = (
    Route("GET", "/api/inspect", inspect_page, Needs.KEY),
    Route("GET", "/api/inspect/conversations", inspect_conversations, Needs.KEY),
    Route("GET", "/api/inspect/conversations/{conversation_id}", inspect_conversation, Needs.KEY),
)


def inspect_routes(settings: Settings) -> tuple[Route, ...]:
    """The page's routes, where the settings want it."""
    return INSPECT_ROUTES if settings.inspect_page else ()
