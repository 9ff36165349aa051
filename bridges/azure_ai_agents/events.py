"""The service's events → entries, and entries → its events. Pure: no network, no Redis, no client.

A text delta becomes a text entry. What a delta has besides its text (its message, its place, annotations)
comes first, as an entry of the delta's own type without the text, wherever it is not that of the delta
before: so a reader can make each event again, and the stream stays small.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bridges.event_stream import Transcript, connection_lost, event_entry, terminal_entry
from streaming.entries import (
    GAP,
    RESET,
    TOOL_CALL,
    TOOL_RESULT,
    USAGE,
    NewEntry,
    RunStatus,
    StreamChunk,
    to_json,
)
from streaming.sse import ServerSentEventDecoder

MESSAGE_DELTA: Final = "thread.message.delta"
MESSAGE_COMPLETED: Final = "thread.message.completed"
STEP_COMPLETED: Final = "thread.run.step.completed"
REQUIRES_ACTION: Final = "thread.run.requires_action"
ERROR: Final = "error"
DONE: Final = "done"
#: What the data of a ``done`` event says.
DONE_DATA: Final = "[DONE]"

#: Of a run, what its agent was told and given: readers of a stream are users, who are not to see it.
_PRIVATE: Final = frozenset({"instructions", "tools", "tool_resources"})

_EXPIRED: Final = "The run expired before the agent had finished."
_INCOMPLETE: Final = "The answer is incomplete: the agent reached a limit."
_FAILED: Final = "The agent failed."
_ENDS: Final[dict[str, tuple[RunStatus, str | None, str | None]]] = {
    "thread.run.completed": (RunStatus.COMPLETED, None, None),
    "thread.run.cancelled": (RunStatus.CANCELLED, None, None),
    "thread.run.failed": (RunStatus.FAILED, _FAILED, "agent_failed"),
    "thread.run.expired": (RunStatus.FAILED, _EXPIRED, "run_timeout"),
    "thread.run.incomplete": (RunStatus.FAILED, _INCOMPLETE, "incomplete"),
}
#: Names of the service's token counts, and the stream's.
_USAGE: Final = {
    "prompt_tokens": "input_token_count",
    "completion_tokens": "output_token_count",
    "total_tokens": "total_token_count",
}


class AgentEvents:
    """Turns the events of one run into entries, in order."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        #: The last delta without its text.
        self._template: dict[str, Any] | None = None
        #: The text of each message by its id, as its deltas have it, and then as it is complete.
        self._messages: dict[str, str] = {}
        self._outcome: NewEntry | None = None
        self._is_waiting = False

    def entries(self, event: str, data: Any) -> list[NewEntry]:
        """An event's entries; the last one is a terminal where the run ends here."""
        if event == MESSAGE_DELTA and isinstance(data, dict):
            return [entry for part in _parts(data) for entry in self._delta(*part)]
        entries = self._transcript.held()
        if event == DONE and self._outcome is not None:
            return [*entries, self._outcome]
        entries.append(event_entry(event, _presentable(event, data)))
        if event == ERROR:
            return [*entries, terminal_entry(RunStatus.FAILED, _FAILED, "agent_failed")]
        if isinstance(data, dict):
            entries += self._consequences(event, data)
        return entries

    def finish(self) -> list[NewEntry]:
        """What is to be said at the end of the service's events; nothing while it waits for tools."""
        if self._outcome is None and self._is_waiting:
            return []
        return [*self._transcript.held(), self._outcome or connection_lost()]

    def leave(self, terminal: NewEntry) -> list[NewEntry]:
        """What is to be said when nobody looks at the events any more."""
        return [*self._transcript.held(), self._outcome or terminal]

    def _delta(self, delta: dict[str, Any], text: str | None) -> list[NewEntry]:
        if not text:
            return [*self._transcript.held(), event_entry(MESSAGE_DELTA, delta)]
        template, message = _without_text(delta), str(delta.get("id"))
        self._messages[message] = self._messages.get(message, "") + text
        entries = self._transcript.text(text)
        if entries and template != self._template:
            self._template = template
            entries.insert(0, event_entry(MESSAGE_DELTA, template))
        return entries

    def _consequences(self, event: str, data: dict[str, Any]) -> list[NewEntry]:
        if event == MESSAGE_COMPLETED:
            return self._correction(data)
        if event == STEP_COMPLETED:
            return _tool_results(data)
        if event.startswith("thread.run.") and not event.startswith("thread.run.step."):
            self._is_waiting = event == REQUIRES_ACTION
        if event == REQUIRES_ACTION:
            return _tool_calls(data)
        if event in _ENDS:
            status, error, code = _ENDS[event]
            self._outcome = terminal_entry(status, error, code)
            return _usage(data)
        return []

    def _correction(self, message: dict[str, Any]) -> list[NewEntry]:
        """A complete message wins over its deltas."""
        texts = [_text_of(part) for part in _list(message, "content")]
        text = "".join(text for text in texts if text is not None)
        if not text or message.get("role", "assistant") == "user":
            return []
        self._messages[str(message.get("id"))] = text
        entries = self._transcript.correct("".join(self._messages.values()))
        if entries:
            # Whose text it is; said again by the next delta, whatever it is.
            self._template = None
            first_text = next(at for at, entry in enumerate(entries) if entry.type is None)
            template = _without_text(_plain_delta(str(message.get("id", "")), ""))
            entries.insert(first_text, event_entry(MESSAGE_DELTA, template))
        return entries


class AgentReplay:
    """Makes the service's events again, from a run's entries in order."""

    def __init__(self) -> None:
        self._template: dict[str, Any] | None = None
        #: The service said itself how the run ended: by the run's state, or by an error.
        self._ended_by = ""

    def event(self, chunk: StreamChunk) -> bytes | None:
        """The event of an entry, as it comes from the service; ``None`` where there is none."""
        if chunk.is_terminal:
            return self._end(chunk)
        if chunk.type is None:
            return _frame(MESSAGE_DELTA, _with_text(self._template, chunk.text or ""))
        if chunk.type == RESET:
            self._template, self._ended_by = None, ""
        elif chunk.type == MESSAGE_DELTA and _is_template(chunk.data):
            self._template = chunk.data
            return None
        elif chunk.type in _ENDS or chunk.type == ERROR:
            self._ended_by = chunk.type
        is_ours = chunk.type in (RESET, GAP)
        if is_ours or chunk.type in (ERROR, DONE) or chunk.type.startswith("thread."):
            return _frame(chunk.type, chunk.data)
        return None

    def _end(self, chunk: StreamChunk) -> bytes | None:
        if self._ended_by == ERROR:
            return None
        if chunk.error is None or self._ended_by:
            return _frame(DONE, DONE_DATA)
        return _frame(ERROR, {"error": {"code": chunk.code, "message": chunk.error}})


class EventFrames:
    """Reads the service's bytes; gives each whole event by itself, as the vendor's handlers can read it.

    They can't read comments, nor data of several lines, and they take half an event for a whole one.
    """

    def __init__(self) -> None:
        self._decoder = ServerSentEventDecoder()

    def feed(self, piece: bytes) -> list[tuple[str, Any, bytes]]:
        """Name, data and bytes of each event that is whole now."""
        events = []
        for event in self._decoder.feed(piece):
            data = _from_json(event.data)
            events.append((event.event, data, _frame(event.event, data)))
        return events

    def rest(self) -> list[tuple[str, Any, bytes]]:
        """A last event without its empty line: the vendor's client makes such ones. No half ones."""
        return [
            (event, data, frame)
            for event, data, frame in self.feed(b"\n\n")
            if isinstance(data, dict) or data == DONE_DATA
        ]


def _presentable(event: str, data: Any) -> Any:
    """The data without what readers are not to see."""
    if not event.startswith("thread.run.") or not isinstance(data, dict):
        return data
    return {name: value for name, value in data.items() if name not in _PRIVATE}


def _parts(delta: dict[str, Any]) -> list[tuple[dict[str, Any], str | None]]:
    """A delta of several parts as several deltas, each with its text."""
    parts = _list(delta.get("delta"), "content")
    if not parts:
        return [(delta, None)]
    return [({**delta, "delta": {**delta["delta"], "content": [part]}}, _text_of(part)) for part in parts]


def _text_of(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else None
    value = text.get("value") if isinstance(text, dict) else None
    return value if isinstance(value, str) else None


def _without_text(delta: dict[str, Any]) -> dict[str, Any]:
    """A delta of one text part, without the text."""
    part = delta["delta"]["content"][0]
    bare = {name: value for name, value in part["text"].items() if name != "value"}
    return {**delta, "delta": {**delta["delta"], "content": [{**part, "text": bare}]}}


def _is_template(delta: Any) -> bool:
    parts = _list(delta.get("delta"), "content") if isinstance(delta, dict) else []
    return len(parts) == 1 and isinstance(parts[0].get("text"), dict) and _text_of(parts[0]) is None


def _with_text(template: dict[str, Any] | None, text: str) -> dict[str, Any]:
    if template is None:
        return _plain_delta("", text)
    part = template["delta"]["content"][0]
    whole = {**part, "text": {**part["text"], "value": text}}
    return {**template, "delta": {**template["delta"], "content": [whole]}}


def _plain_delta(message_id: str, text: str) -> dict[str, Any]:
    part = {"index": 0, "type": "text", "text": {"value": text, "annotations": []}}
    return {"id": message_id, "object": MESSAGE_DELTA, "delta": {"content": [part]}}


def _tool_calls(run: dict[str, Any]) -> list[NewEntry]:
    action = run.get("required_action")
    submit = action.get("submit_tool_outputs") if isinstance(action, dict) else None
    return [
        event_entry(TOOL_CALL, {"call_id": call.get("id"), **_named(call["function"], "name", "arguments")})
        for call in _list(submit, "tool_calls")
        if isinstance(call.get("function"), dict)
    ]


def _tool_results(step: dict[str, Any]) -> list[NewEntry]:
    return [
        event_entry(TOOL_RESULT, {"call_id": call.get("id"), "result": call["function"]["output"]})
        for call in _list(step.get("step_details"), "tool_calls")
        if isinstance(call.get("function"), dict) and call["function"].get("output") is not None
    ]


def _usage(run: dict[str, Any]) -> list[NewEntry]:
    counts = run.get("usage")
    if not isinstance(counts, dict):
        return []
    return [event_entry(USAGE, {ours: counts[theirs] for theirs, ours in _USAGE.items() if theirs in counts})]


def _named(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.get(name, "") for name in names}


def _list(holder: Any, name: str) -> list[dict[str, Any]]:
    """The objects of a list in the service's data; empty where there is none."""
    held = holder.get(name) if isinstance(holder, dict) else None
    return [item for item in held if isinstance(item, dict)] if isinstance(held, list) else []


def _frame(event: str, data: Any) -> bytes:
    text = data if isinstance(data, str) else to_json(data)
    return f"event: {event}\ndata: {text}\n\n".encode("utf-8", "replace")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
