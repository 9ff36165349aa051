"""The routes of the audit trail: docs/protocol.md, 5.10."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridges.audit_trail.callback import failed, new_execution
from bridges.audit_trail.events import Thread, TrailEvent, unix_milliseconds
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch, Selection, TrailStore
from bridges.audit_trail.timeline import timeline_response
from streaming.entries import RunStatus
from streaming.errors import InvalidCursor, InvalidInput
from streaming.http.access import Needs
from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest, HttpResponse, json_response
from streaming.http.routes import Route
from streaming.identifiers import check_conversation_id, check_run_id, parse_entry_id
from streaming.reading.liveness import interrupted
from streaming.store.run_states import RunState

PATH: Final = "/api/agents/{agent}/callbacks/{conversation_id}"

#: A run's stream ends a moment before its trail does. Who asks in between waits, at most so long.
CLOSING_PATIENCE: Final = timedelta(seconds=2)
#: A trail that is not closed so long after its run's end lost its end: nobody waits for it. It is more than
#: the clocks of servers differ.
CLOSING_WINDOW: Final = timedelta(seconds=15)
#: Between two looks at a trail that is about to be closed.
CLOSING_LOOK: Final = timedelta(milliseconds=20)

#: A time as it may be written in a query, where a ``+`` may have become a space.
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?(?P<zone>[Zz]|[+ -]\d\d:\d\d)?", re.ASCII
)
_SINCE: Final = "an event's id, or a time such as 2026-11-20T23:01:20Z"
#: An answer is of this moment, and nobody else's.
_HEADERS: Final = {"cache-control": "no-store"}


class AuditTrailEndpoints:
    """Reads and deletes trails over HTTP."""

    def __init__(self, store: Callable[[], TrailStore], settings: AuditTrailSettings) -> None:
        """Read from ``store()``, which gives the running event loop's own store."""
        self._store = store
        self._settings = settings

    @property
    def routes(self) -> tuple[Route, ...]:
        """What a host has to answer."""
        return (
            Route("GET", PATH, self.callbacks, Needs.CONVERSATION),
            Route("DELETE", PATH, self.delete_callbacks, Needs.CONVERSATION),
            Route("GET", f"{PATH}/timeline", self.callbacks_timeline, Needs.CONVERSATION),
        )

    async def callbacks(self, endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``GET /api/agents/{agent}/callbacks/{conversation_id}``."""
        thread, wanted = _thread(endpoints, request), self._selection(request)
        await self._wait_for_end(endpoints, thread, wanted.run)
        found = await self._store().read(thread, wanted)
        return json_response(200, [each.published(thread) for each in found], _HEADERS)

    async def delete_callbacks(self, endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``DELETE /api/agents/{agent}/callbacks/{conversation_id}``."""
        thread = _thread(endpoints, request)
        runs = await endpoints.runs.registered(thread.conversation_id)
        await self._store().delete(thread, runs)
        return HttpResponse(204)

    async def callbacks_timeline(self, endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``GET /api/agents/{agent}/callbacks/{conversation_id}/timeline``."""
        _thread(endpoints, request)
        return timeline_response()

    def _selection(self, request: HttpRequest) -> Selection:
        limit, since, run = (request.query.get(name) for name in ("limit", "since", "run"))
        most = self._settings.max_events
        wanted = Selection(_limit(limit, most) if limit else most, run=check_run_id(run) if run else None)
        return _since(since, wanted) if since else wanted

    async def _wait_for_end(self, endpoints: Endpoints, thread: Thread, run: str | None) -> None:
        """Wait for the last event of a run that has just ended; give one to a run that can't get its own."""
        if not self._settings.observes(thread.agent):
            return
        runs, conversation_id = endpoints.runs, thread.conversation_id
        state = await (runs.state(conversation_id, run) if run else runs.latest_run(conversation_id))
        if state is None or state.agent != thread.agent or not state.status.is_terminal:
            return
        store = self._store()
        if await store.is_settled(thread, state.run):
            return
        outcome = _outcome_of(state)
        if outcome is not None:
            await store.append(Batch(thread, state.run, new_execution(), 0, [outcome], None))
        elif _ended_just_now(state):
            await _until_settled(store, thread, state.run)


async def _until_settled(store: TrailStore, thread: Thread, run: str) -> None:
    end = time.monotonic() + CLOSING_PATIENCE.total_seconds()
    while time.monotonic() < end:
        await asyncio.sleep(CLOSING_LOOK.total_seconds())
        if await store.is_settled(thread, run):
            return


def _ended_just_now(state: RunState) -> bool:
    return abs(time.time() * 1000 - (state.ended or 0)) < CLOSING_WINDOW / timedelta(milliseconds=1)


def _outcome_of(state: RunState) -> TrailEvent | None:
    """How a run ended of which no callback will tell: its process is gone, or it never began."""
    if state.status is RunStatus.INTERRUPTED:
        return failed(interrupted().error, interrupted().code)
    if state.status is RunStatus.CANCELLED and state.attempt == 0:
        return failed("The run was cancelled before it began.", RunStatus.CANCELLED.value)
    return None


def _thread(endpoints: Endpoints, request: HttpRequest) -> Thread:
    agent = endpoints.agent_of(request)
    return Thread(agent, check_conversation_id(request.path["conversation_id"]))


def _limit(value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value[:10]) <= most):
        raise InvalidInput("limit", value, f"a whole number from 1 to {most}")
    return int(value)


def _since(value: str, wanted: Selection) -> Selection:
    """Events after one, or from a time on."""
    match: Any = _TIME.fullmatch(value)
    try:
        if match is None:
            return Selection(wanted.limit, after=parse_entry_id(value), run=wanted.run)
        text = value
        if (match["zone"] or "").startswith(" "):
            text = f"{value[: match.start('zone')]}+{value[match.start('zone') + 1 :]}"
        moment = datetime.fromisoformat(text.upper())
    except (InvalidCursor, ValueError):
        raise InvalidInput("since", value, _SINCE) from None
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return Selection(wanted.limit, since=unix_milliseconds(zoned), run=wanted.run)
