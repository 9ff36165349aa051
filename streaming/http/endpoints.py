"""What the HTTP routes do, on every host: docs/protocol.md, section 5."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from streaming.durable_answer import DurableAnswer, Restore
from streaming.entries import RunStatus
from streaming.errors import (
    AgentNotFound,
    InvalidInput,
    RunNotFound,
    StreamingError,
    StreamUnavailable,
    TaskHubUnavailable,
)
from streaming.http.access import Access
from streaming.http.answering import TRACE_HEADER, answering, traced
from streaming.http.answers import Answer, collect_answer
from streaming.http.delivery import as_plain_text, as_server_sent_events
from streaming.http.limits import Load, TimeLimit
from streaming.http.messages import (
    TEXT_TYPE,
    DirectLine,
    HttpRequest,
    HttpResponse,
    error_response,
    json_response,
    parse_flag,
)
from streaming.http.openapi import openapi_document
from streaming.http.run_input import RunInput, parse_run_input
from streaming.http.run_report import accepted, answered, failed, identity, run_report
from streaming.http.task_hub import RunRequest, TaskHub
from streaming.identifiers import check_conversation_id, check_run_id, new_id
from streaming.reading.open_stream import OpenStream
from streaming.reading.reader import HEARTBEAT, StreamReader
from streaming.reading.span import Cursor
from streaming.settings import Settings
from streaming.sse import CONTENT_TYPE, encode_retry
from streaming.store.run_states import RunState
from streaming.store.run_store import RunStore
from streaming.telemetry import NO_SPAN, ReaderOpened, RequestBegan, Span, Telemetry
from streaming.writing.leases import LeaseKeeper
from streaming.writing.restorer import StreamRestorer

_log = logging.getLogger(__name__)

RUN_ROUTE: Final = "/api/agents/{agent}/run"
STREAM_ROUTE: Final = "/api/agent/stream/{conversation_id}"
#: A client that reconnects while the store is away comes back after this, in milliseconds.
UNAVAILABLE_RETRY_MS: Final = 3_000

#: Of a stream of server-sent events.
STREAM_HEADERS: Final = {
    "content-type": CONTENT_TYPE,
    "cache-control": "no-cache, no-transform",
    # nginx and its kin buffer responses without it.
    "x-accel-buffering": "no",
}

#: Cursors of clients that have nothing yet.
_FROM_THE_START: Final = (None, "", "0", "0-0")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The routes' logic. Belongs to the event loop that its store and reader belong to."""

    settings: Settings
    #: Names, and whether ``run`` waits for the answer by default.
    agents: Mapping[str, bool]
    runs: RunStore
    reader: StreamReader
    hub: TaskHub
    #: Keeps runs alive that wait for their turn.
    leases: LeaseKeeper
    #: Shared by all of the process's endpoints.
    load: Load = field(default_factory=Load)
    #: One for all of their readers. It does not know these endpoints, which a host may make for each request:
    #: the garbage collector would have to free them.
    _restore: Restore = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Know how a lost stream is written again."""
        restorer = StreamRestorer(self.runs, partial(_find_answer, self.hub, self.agents))
        object.__setattr__(self, "_restore", restorer.restore)

    @property
    def access(self) -> Access:
        """Who may do what."""
        return Access(self.settings.access)

    async def run(self, request: HttpRequest) -> HttpResponse:
        """``POST /api/agents/{agent}/run``."""
        began = RequestBegan("POST", RUN_ROUTE, request.headers.get(TRACE_HEADER, ""))
        span = self.telemetry.traces.request(began)
        span.make_current()
        outcome = "left"
        try:
            response = await answering(self._run, replace(request, trace=span.traceparent), self.telemetry)
            outcome = str(response.status)
        finally:
            span.end(outcome)
        return traced(response, span)

    async def status(self, request: HttpRequest) -> HttpResponse:
        """``GET /api/agents/{agent}/run/{conversation_id}``."""
        return await answering(self._status, request, self.telemetry)

    async def cancel(self, request: HttpRequest) -> HttpResponse:
        """``DELETE /api/agents/{agent}/run/{conversation_id}``."""
        return await answering(self._cancel, request, self.telemetry)

    async def stream(self, request: HttpRequest) -> HttpResponse:
        """``GET /api/agent/stream/{conversation_id}``."""
        return await answering(self._stream, request, self.telemetry)

    @property
    def telemetry(self) -> Telemetry:
        """Told of what is asked and answered."""
        return self.runs.telemetry

    async def health(self, _request: HttpRequest) -> HttpResponse:
        """``GET /api/health``."""
        redis_ok, hub_ok = await self._reaches()
        healthy = redis_ok and hub_ok
        report = {
            "status": "healthy" if healthy else "unhealthy",
            "agents": [{"name": name} for name in self.agents],
            "agent_count": len(self.agents),
            "redis": "ok" if redis_ok else "unavailable",
            "task_hub": "ok" if hub_ok else "unavailable",
        }
        return json_response(200 if healthy else 503, report)

    async def _reaches(self) -> tuple[bool, bool]:
        """Whether Redis answers, and the task hub."""
        redis_ok = True
        try:
            await self.runs.ping()
            self.telemetry.redis_answered()
        except RedisError as error:
            redis_ok = False
            self.telemetry.redis_failed("health", error)
        return redis_ok, await self.hub.is_healthy()

    async def live(self, _request: HttpRequest) -> HttpResponse:
        """``GET /api/health/live``: that this is answered is the answer."""
        return json_response(200, {"status": "live"})

    async def ready(self, _request: HttpRequest) -> HttpResponse:
        """``GET /api/health/ready``.

        What was reached once may be away for a while: clients are told so, and told to come back. A gateway
        that sent them away with a status of its own would end browsers' streams for good.
        """
        if not self.load.has_been_ready:
            self.load.has_been_ready = all(await self._reaches())
        if self.reader.closed or not self.load.has_been_ready:
            return json_response(503, {"status": "stopping" if self.reader.closed else "starting"})
        return json_response(200, {"status": "ready"})

    async def openapi(self, _request: HttpRequest) -> HttpResponse:
        """``GET /api/openapi.json``."""
        return json_response(200, openapi_document(self.settings.access, self.agents))

    async def _run(self, request: HttpRequest) -> HttpResponse:
        agent = self.agent_of(request)
        wanted = parse_run_input(request)
        self.access.check_joining(request, wanted.conversation_id)
        state = await self._start(agent, wanted, request.trace)
        token = self.access.issue(state.conversation_id)
        headers = {**_identity_headers(state), **(token.headers if token else {})}
        fields = token.fields if token else {}
        wait = self.agents[agent] if wanted.wait is None else wanted.wait
        if not wait:
            return json_response(202, accepted(state, wanted.message) | fields, headers)
        try:
            answer = await self._collect(state)
        except StreamingError as error:
            # The run goes on: its client needs to know which one it is.
            return error_response(error, headers)
        if answer.error is not None:
            status, report = failed(state, answer)
            return json_response(status, report | fields, headers)
        if wanted.is_json or request.accepts("json"):
            return json_response(200, answered(state, wanted.message, answer) | fields, headers)
        return HttpResponse(200, {"content-type": TEXT_TYPE, **headers}, answer.text.encode())

    async def _start(self, agent: str, wanted: RunInput, trace: str) -> RunState:
        """Register the run, then tell the agent: its reader may come before its first chunk."""
        conversation_id = wanted.conversation_id or new_id()
        with self.load.run_starting(len(self.leases.running()), self.settings.limits):
            state = await self.runs.register(conversation_id, new_id(), agent, trace=trace)
            self.telemetry.redis_answered()
            self.leases.keep(conversation_id, state.run, agent=agent, trace=trace)
        try:
            await self.hub.start(
                RunRequest(
                    agent=agent,
                    conversation_id=conversation_id,
                    run=state.run,
                    message=wanted.message,
                    role=wanted.role,
                    enable_tool_calls=wanted.enable_tool_calls,
                    options=wanted.options,
                )
            )
        except TaskHubUnavailable:
            # The client hears of it and tries again; the run itself must not wait for an agent for ever.
            self.leases.release(conversation_id, state.run)
            await self.runs.fail_unstarted(state)
            raise
        self.telemetry.run_accepted(agent)
        _log.debug("run accepted: conversation=%s run=%s agent=%s", conversation_id, state.run, agent)
        return state

    async def _status(self, request: HttpRequest) -> HttpResponse:
        agent, conversation_id = self.agent_of(request), _conversation_id(request)
        run = _run_id(request)
        state = await self._find_run(agent, conversation_id, run)
        if state is not None and await self.reader.producers.ended(state, self._restore):
            state = await self.runs.state(conversation_id, state.run)
        if state is not None and not state.status.is_terminal:
            return json_response(200, run_report(state, None))
        durable = await self.hub.answer(agent, conversation_id, state.run if state else run)
        if state is None:
            if durable is None:
                raise RunNotFound
            ids = identity(conversation_id, durable.run)
            return json_response(200, run_report(ids, Answer(durable.text, durable.error, durable.code)))
        if durable is not None and durable.error is None:
            # The durable state is the truth, also where the stream missed the end.
            answered_state = replace(state, status=RunStatus.COMPLETED)
            return json_response(200, run_report(answered_state, Answer(durable.text)))
        return json_response(200, run_report(state, await self._stored_answer(state)))

    async def _stored_answer(self, state: RunState) -> Answer:
        """What the stream has of an ended run, also of one that failed on its way."""
        try:
            return await self._collect(state)
        except RunNotFound:
            return Answer("")

    async def _collect(self, state: RunState) -> Answer:
        return await collect_answer(self.reader, state, self.settings.run_wait_timeout, self._restore)

    async def _cancel(self, request: HttpRequest) -> HttpResponse:
        agent, conversation_id = self.agent_of(request), _conversation_id(request)
        state = await self._find_run(agent, conversation_id, _run_id(request))
        if state is None:
            raise RunNotFound
        if state.status is RunStatus.PENDING and await self.runs.cancel_unstarted(state):
            state = await self.runs.state(conversation_id, state.run) or state
        elif not state.status.is_terminal:
            await self.runs.request_cancel(conversation_id, state.run)
            self.telemetry.traces.moment("cancel requested", state.trace, {"agent": agent})
            return json_response(202, {**identity(conversation_id, state.run), "status": "Canceling"})
        return json_response(200, run_report(state, None))

    async def _stream(self, request: HttpRequest) -> HttpResponse:
        began = time.time_ns()
        conversation_id = _conversation_id(request)
        asked = request.query.get("cursor")
        # A reconnect repeats the old query, whose cursor counts no more, but was one.
        Cursor.parse(asked)
        cursor = request.headers.get("last-event-id") or asked
        events = request.query.get("events")
        if events not in (None, "", "all"):
            raise InvalidInput("events", events, "all, or nothing")
        plain = request.wants_plain_text
        headers = {**STREAM_HEADERS, "x-conversation-id": conversation_id}
        if plain:
            headers["content-type"] = TEXT_TYPE
        try:
            opened = await self._open(request, conversation_id, cursor)
        except StreamUnavailable:
            if not request.is_event_source_reconnect:
                raise
            return HttpResponse(200, headers, encode_retry(UNAVAILABLE_RETRY_MS + self.load.spread_ms))
        if opened.has_nothing_more:
            return HttpResponse(204, {"x-conversation-id": conversation_id})
        limits = self.settings.limits
        limit = TimeLimit(limits.stream_max, limits.stream_idle)
        resumed = cursor not in _FROM_THE_START
        span = await self._reader_span(request, conversation_id, resumed=resumed, began=began)
        direct = DirectLine()
        if plain:
            pieces = as_plain_text(opened, resumed=resumed, limit=limit, span=span)
        else:
            pieces = as_server_sent_events(
                opened,
                all_events=events == "all",
                limit=limit,
                reconnect_ms=self.load.reconnect_ms,
                span=span,
                direct=direct,
            )
        return traced(HttpResponse(200, headers, pieces, direct), span)

    async def _open(self, request: HttpRequest, conversation_id: str, cursor: str | None) -> OpenStream:
        limits = self.settings.limits
        return await self.reader.open(
            conversation_id,
            cursor,
            run=_run_id(request),
            follow=parse_flag("follow", request.query.get("follow") or False),
            appear_timeout=self.settings.stream_appear_timeout,
            # Limits are looked at whenever a read gives something.
            heartbeat=min(HEARTBEAT, limits.stream_max, limits.stream_idle),
            restore=self._restore,
        )

    async def _reader_span(
        self, request: HttpRequest, conversation_id: str, *, resumed: bool, began: int
    ) -> Span:
        """The reader's part of the trace of the run that it reads."""
        if not self.telemetry.traces.is_on:
            return NO_SPAN
        state = None
        with contextlib.suppress(RedisError):
            run = _run_id(request)
            if run is None:
                state = await self.runs.latest_run(conversation_id)
            else:
                state = await self.runs.state(conversation_id, run)
        return self.telemetry.traces.reader(
            ReaderOpened(
                conversation_id=conversation_id,
                route=STREAM_ROUTE,
                traceparent=request.headers.get(TRACE_HEADER, ""),
                run_traceparent=state.trace if state is not None else "",
                resumed=resumed,
                began=began,
            )
        )

    def agent_of(self, request: HttpRequest) -> str:
        """The agent in a request's path.

        Raises:
            AgentNotFound: there is no such agent.
        """
        agent = request.path["agent"]
        if agent not in self.agents:
            raise AgentNotFound(f"There is no such agent; there are {', '.join(sorted(self.agents))}.")
        return agent

    async def _find_run(self, agent: str, conversation_id: str, run: str | None) -> RunState | None:
        if run is None:
            state = await self.runs.latest_run(conversation_id)
        else:
            state = await self.runs.state(conversation_id, run)
        if state is not None and state.agent != agent:
            raise RunNotFound
        return state


async def _find_answer(
    hub: TaskHub, agents: Iterable[str], conversation_id: str, run: str | None
) -> DurableAnswer | None:
    """The durable answer, whichever of the agents gave it; of several, the latest."""
    answers = await asyncio.gather(*(hub.answer(agent, conversation_id, run) for agent in agents))
    found = [answer for answer in answers if answer is not None]
    return max(found, key=lambda answer: answer.ended, default=None)


def _conversation_id(request: HttpRequest) -> str:
    return check_conversation_id(request.path["conversation_id"])


def _run_id(request: HttpRequest) -> str | None:
    run: Any = request.query.get("run")
    return check_run_id(run) if run else None


def _identity_headers(state: RunState) -> dict[str, str]:
    return {"x-conversation-id": state.conversation_id, "x-ms-session-id": state.conversation_id}
