"""The agent's updates → events of its trail."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

from agent_framework import AgentResponse, AgentResponseUpdate, Content
from agent_framework_durabletask import AgentCallbackContext, AgentResponseCallbackProtocol

from bridges.audit_trail.events import (
    ID_LIMIT,
    REQUEST_LIMIT,
    RESPONSE_LIMIT,
    TEXT_LIMIT,
    EventType,
    Thread,
    TrailEvent,
    bounded,
)
from bridges.audit_trail.store import TrailStore
from bridges.audit_trail.writer import TrailWriter
from streaming.identifiers import new_id
from streaming.text_joiner import TextJoiner

_log = logging.getLogger(__name__)

#: How long the end of a run waits until its trail is stored. Below what an observer is given
#: (``hosting.callbacks.OBSERVER_TIMEOUT``); what is late is stored in the background.
FLUSH_TIMEOUT: Final = timedelta(seconds=1.5)


class ConversationAuditTrail(AgentResponseCallbackProtocol):
    """Keeps what the callback of an agent is told: an observer in ``hosting.callbacks.Callbacks``.

    It never waits for its store while the agent works, and at most ``FLUSH_TIMEOUT`` at the run's end.
    Wrap the agents in ``hosting.streamable_agent.StreamableAgent``: only then does it hear of a failure.
    """

    def __init__(self, store: Callable[[], TrailStore]) -> None:
        """Keep trails in ``store()``, which gives the running event loop's own store."""
        self._store = store
        #: The framework executes each run in a task of its own.
        self._runs: WeakKeyDictionary[asyncio.Task[Any], _RunTrail] = WeakKeyDictionary()
        self._sending: set[asyncio.Task[None]] = set()

    async def on_streaming_response_update(
        self, update: AgentResponseUpdate, context: AgentCallbackContext
    ) -> None:
        """Keep what the update holds; an empty one makes no event."""
        run = self._run_of(context)
        for event in run.translate(update):
            run.writer.put(event)

    async def on_agent_response(self, response: AgentResponse[Any], context: AgentCallbackContext) -> None:
        """Keep how the run ended, and wait for a while until all is stored."""
        run = self._run_of(context)
        self._forget()
        for event in run.conclude(response):
            run.writer.put(event)
        if not await run.writer.flush(FLUSH_TIMEOUT):
            _log.warning("audit trail is late: run=%s", context.correlation_id)

    def _run_of(self, context: AgentCallbackContext) -> _RunTrail:
        """The trail of the run that this task executes."""
        task = _current_task()
        run = self._runs.get(task)
        if run is None or run.id != context.correlation_id:
            run = self._runs[task] = _RunTrail(context, self._new_writer(context))
        return run

    def _forget(self) -> None:
        self._runs.pop(_current_task(), None)

    def _new_writer(self, context: AgentCallbackContext) -> TrailWriter:
        request = context.request_message
        return TrailWriter(
            self._store(),
            Thread(context.agent_name, context.session_id or ""),
            context.correlation_id,
            execution=new_execution(),
            request=bounded(request, REQUEST_LIMIT) if request else None,
            sending=self._sending,
        )


def new_execution() -> str:
    """Name an execution so that one that begins later has a greater name."""
    # A run may be executed again within a millisecond.
    return f"{time.time_ns():020d}-{new_id()}"


class _RunTrail:
    """One execution of a run."""

    def __init__(self, context: AgentCallbackContext, writer: TrailWriter) -> None:
        self.id = context.correlation_id
        self.writer = writer
        self._joiner = TextJoiner()
        self._calls: dict[str, dict[str, Any]] = {}
        self._failure: Content | None = None

    def translate(self, update: AgentResponseUpdate) -> Iterator[TrailEvent]:
        """An update's events."""
        for content in update.contents:
            if content.type == "function_call":
                self._collect_call(content)
                continue
            yield from self._finished_calls()
            yield from self._events_of(content)

    def _events_of(self, content: Content) -> Iterator[TrailEvent]:
        match content.type:
            case "text":
                # "replace" repeats the whole text at the end of it; the final event has the answer.
                text = "" if content.merge_mode == "replace" else self._joiner.feed(content.text or "")
                if text:
                    yield _stream("text", text)
            case "text_reasoning":
                if content.text:
                    yield _stream("reasoning", content.text)
            case "function_result":
                yield _stream(
                    "tool_result", _plain(content.result), call_id=bounded(content.call_id or "", ID_LIMIT)
                )
            case "usage":
                yield _stream("usage", "", usage=_usage(content.usage_details))
            case "error":
                self._failure = content
            case kind:
                # Whatever else there is, by the framework's name for it.
                described = content.to_dict(exclude={"raw_representation"}, exclude_none=True)
                yield _stream(kind, content.text or _plain(described))

    def _collect_call(self, content: Content) -> None:
        """Providers send a call's arguments in fragments; an event has the whole call."""
        call_id = content.call_id or next(reversed(self._calls), "")
        call = self._calls.setdefault(call_id, {"name": "", "arguments": ""})
        call["name"] = content.name or call["name"]
        arguments = content.arguments
        if isinstance(arguments, str):
            call["arguments"] += arguments
        elif arguments is not None:
            call["arguments"] = _plain(dict(arguments))

    def _finished_calls(self) -> Iterator[TrailEvent]:
        calls, self._calls = self._calls, {}
        for call_id, call in calls.items():
            yield _stream(
                "tool_call", f"{call['name']}({call['arguments']})", call_id=bounded(call_id, ID_LIMIT)
            )

    def conclude(self, response: AgentResponse[Any]) -> Iterator[TrailEvent]:
        """What is still missing, and how the run ended."""
        yield from self._finished_calls()
        held = self._joiner.flush()
        if held:
            yield _stream("text", held)
        contents = [content for message in response.messages for content in message.contents]
        text = "".join(content.text or "" for content in contents if content.type == "text")
        ended = {"response_text": bounded(text, RESPONSE_LIMIT), "usage": _usage(response.usage_details)}
        failure = self._failure or next((content for content in contents if content.type == "error"), None)
        if failure is None:
            yield TrailEvent(_now(), EventType.FINAL, ended)
        else:
            yield failed(failure.message, failure.error_code, **ended)


def failed(message: str | None, code: str | None, **more: Any) -> TrailEvent:
    """The end of a run that failed, was cancelled or was interrupted, as a user may be told it."""
    told = {
        "error": bounded(message or "The agent failed.", TEXT_LIMIT),
        "code": bounded(code or "agent_failed", ID_LIMIT),
    }
    return TrailEvent(_now(), EventType.ERROR, {**told, **more})


def _stream(kind: str, text: str, **more: Any) -> TrailEvent:
    return TrailEvent(
        _now(), EventType.STREAM, {"update_kind": kind, "text": bounded(text, TEXT_LIMIT), **more}
    )


def _usage(details: Any) -> dict[str, Any] | None:
    """Token counts in their published form; ``None``: not known."""
    if not details:
        return None
    # Sorted: the framework adds counts up in no order.
    counts = {name: count for name, count in sorted(details.items()) if isinstance(count, int)}
    return {"type": "usage_details", **counts}


def _plain(value: Any) -> str:
    """A value as text: tools return anything."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("Callbacks are called in a task.")
    return task


def _now() -> int:
    return time.time_ns() // 1_000_000
