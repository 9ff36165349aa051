"""The API's events → entries, and entries → its events. Pure: no network, no Redis, no client.

A text delta becomes a text entry. What a delta has besides its text (its item, its place, log probabilities)
comes first, as an entry of the delta's own type without the text, wherever it is not that of the delta
before: so a reader can make each event again, and the stream stays small.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, cast, get_args, get_origin

from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent

from bridges.event_stream import Transcript, event_entry, failure_of, terminal_entry
from streaming.entries import (
    GAP,
    REASONING,
    RESET,
    TOOL_CALL,
    USAGE,
    NewEntry,
    RunStatus,
    StreamChunk,
)

TEXT_DELTA: Final = "response.output_text.delta"
#: What the model says to the user; the second instead of an answer.
_TEXT_DELTAS: Final = frozenset({TEXT_DELTA, "response.refusal.delta"})
_REASONING: Final = frozenset({"response.reasoning_text.done", "response.reasoning_summary_text.done"})
COMPLETED: Final = "response.completed"
ERROR: Final = "error"

#: Of a response, what the model was told and given: readers of a stream are users, who are not to see it.
_PRIVATE: Final = frozenset(
    {"instructions", "tools", "prompt", "prompt_cache_key", "safety_identifier", "user"}
)
#: Random letters against guessing a text by its length; nothing that is stored needs them.
_PADDING: Final = "obfuscation"

#: Items of a response that ask its program for something: the run goes on with another response.
_CALLS: Final = frozenset(
    {
        *("apply_patch_call", "computer_call", "custom_tool_call", "function_call", "local_shell_call"),
        *("mcp_approval_request", "shell_call"),
    }
)
_INCOMPLETE: Final = "The answer is incomplete: the model reached a limit."
_FAILED: Final = "The agent failed."
ENDS: Final[dict[str, tuple[RunStatus, str | None, str | None]]] = {
    COMPLETED: (RunStatus.COMPLETED, None, None),
    "response.cancelled": (RunStatus.CANCELLED, None, None),
    "response.failed": (RunStatus.FAILED, _FAILED, "agent_failed"),
    "response.incomplete": (RunStatus.FAILED, _INCOMPLETE, "incomplete"),
    ERROR: (RunStatus.FAILED, _FAILED, "agent_failed"),
}
#: Statuses of a response that has ended.
ENDED: Final = frozenset({"completed", "cancelled", "failed", "incomplete"})
#: Names of the API's token counts, and the stream's.
_USAGE: Final = {
    "input_tokens": "input_token_count",
    "output_tokens": "output_token_count",
    "total_tokens": "total_token_count",
}


class ResponseEvents:
    """Turns the events of one run's responses into entries, in order."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        #: The last delta without its text and number, and the number that a reader takes the next one for.
        self._template: dict[str, Any] | None = None
        self._expected = 0
        #: The text of each part by its item and place, as its deltas have it, and then as it is complete.
        self._parts: dict[tuple[str, int], str] = {}
        self._is_waiting = False

    def entries(self, event: dict[str, Any]) -> list[NewEntry]:
        """An event's entries; the last one is a terminal where the run ends here."""
        kind, sequence = str(event.get("type")), _sequence(event)
        if kind in _TEXT_DELTAS and event.get("delta"):
            return self._delta(event, sequence)
        self._expected = sequence + 1
        entries = [*self._transcript.held(), event_entry(kind, _presentable(event))]
        if kind in ("response.output_text.done", "response.refusal.done"):
            self._parts[_part_of(event)] = str(event.get("text") or event.get("refusal") or "")
            entries += self._correction()
        elif kind == "response.output_item.done":
            entries += _tool_calls(event)
        elif kind in _REASONING:
            entries.append(event_entry(REASONING, {"text": event.get("text")}))
        elif kind in ENDS:
            entries += self._end(kind, event.get("response"))
        return entries

    def leave(self, error: BaseException | None) -> list[NewEntry]:
        """What is to be said when the program is done, or has failed."""
        is_completed = self._is_waiting and error is None
        terminal = terminal_entry(RunStatus.COMPLETED) if is_completed else failure_of(error)
        return self.end_with(terminal)

    def end_with(self, terminal: NewEntry) -> list[NewEntry]:
        """What is to be said before a terminal that is not the API's, and that."""
        return [*self._transcript.held(), terminal]

    def _delta(self, event: dict[str, Any], sequence: int) -> list[NewEntry]:
        part, text = _part_of(event), str(event["delta"])
        self._parts[part] = self._parts.get(part, "") + text
        entries = self._transcript.text(text)
        if entries:
            template = _without_text(event)
            if template != self._template or sequence != self._expected:
                self._template = template
                entries.insert(0, event_entry(template["type"], {**template, "sequence_number": sequence}))
            self._expected = sequence + 1
        return entries

    def _end(self, kind: str, response: Any) -> list[NewEntry]:
        entries = []
        if kind == COMPLETED:
            for item in _list(response, "output"):
                for index, content in enumerate(_list(item, "content")):
                    text = content.get("text") or content.get("refusal")
                    if item.get("type") == "message" and isinstance(text, str):
                        self._parts[str(item.get("id")), index] = text
            entries += self._correction()
        entries += _usage(response)
        self._is_waiting = kind == COMPLETED and any(
            item.get("type") in _CALLS for item in _list(response, "output")
        )
        if not self._is_waiting:
            status, error, code = ENDS[kind]
            entries.append(terminal_entry(status, error, code))
        return entries

    def _correction(self) -> list[NewEntry]:
        """Complete parts win over their deltas."""
        entries = self._transcript.correct("".join(self._parts.values()))
        if entries:
            # What follows is no delta of the API's: readers make one that belongs to no item.
            self._template = {}
            first_text = next((at for at, entry in enumerate(entries) if entry.type is None), 0)
            template = {**_plain_delta("", self._expected), "item_id": next(reversed(self._parts))[0]}
            del template["delta"]
            entries.insert(first_text, event_entry(TEXT_DELTA, template))
        return entries


#: What a reader gives: an event of the API; or ``reset`` or ``gap`` as the stream has it.
ResponseEvent: TypeAlias = ResponseStreamEvent | StreamChunk


class ResponseReplay:
    """Makes the API's events again, from a run's entries in order."""

    def __init__(self) -> None:
        self._template: dict[str, Any] | None = None
        self._expected = 0
        #: The API said itself how the run ended.
        self._has_ended = False

    def event(self, chunk: StreamChunk) -> ResponseEvent | None:
        """The event of an entry; ``None`` where there is none."""
        if chunk.is_terminal:
            return self._end(chunk)
        if chunk.type in (RESET, GAP):
            self._template, self._has_ended = None, False
            return chunk
        if chunk.type is None:
            delta = _plain_delta(chunk.text or "", self._expected)
            if self._template is not None:
                delta = {**self._template, "delta": delta["delta"], "sequence_number": self._expected}
            self._expected += 1
            return model_of(delta)
        if (chunk.type != ERROR and not chunk.type.startswith("response.")) or not isinstance(
            chunk.data, dict
        ):
            return None
        if chunk.type in _TEXT_DELTAS and "delta" not in chunk.data:
            self._template, self._expected = _without_text(chunk.data), _sequence(chunk.data)
            return None
        self._expected = _sequence(chunk.data) + 1
        self._has_ended = chunk.type in ENDS
        return model_of(chunk.data)

    def _end(self, chunk: StreamChunk) -> ResponseEvent | None:
        if chunk.error is None or self._has_ended:
            return None
        error = {"type": ERROR, "code": chunk.code, "message": chunk.error, "param": None}
        return model_of({**error, "sequence_number": self._expected})


def _models() -> dict[str, type[BaseModel]]:
    """The SDK's class of each event type."""
    # An annotation around a union.
    union = get_args(ResponseStreamEvent)[0]
    found: dict[str, type[BaseModel]] = {}
    for model in get_args(union):
        kinds = model.model_fields["type"].annotation
        if get_origin(kinds) is Literal:
            found |= dict.fromkeys(get_args(kinds), model)
    return found


_MODELS: Final = _models()


def model_of(event: dict[str, Any]) -> ResponseStreamEvent:
    """An event as the SDK gives it; a plain model where the SDK doesn't know its type."""
    model = _MODELS.get(str(event.get("type")), BaseModel).construct(**event)
    return cast("ResponseStreamEvent", model)


def snapshot_event(response: Response, sequence: int) -> ResponseStreamEvent:
    """The event that a response which has ended, but whose events are gone, must have ended with."""
    kind = f"response.{response.status}"
    return model_of({"type": kind, "response": response.to_dict(), "sequence_number": sequence})


def _presentable(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what readers are not to see."""
    shown = {name: value for name, value in event.items() if name != _PADDING}
    response = shown.get("response")
    if isinstance(response, dict):
        shown["response"] = {name: value for name, value in response.items() if name not in _PRIVATE}
    return shown


def _without_text(delta: dict[str, Any]) -> dict[str, Any]:
    """A delta without its text and its number."""
    return {name: delta[name] for name in delta if name not in ("delta", "sequence_number", _PADDING)}


def _plain_delta(text: str, sequence: int) -> dict[str, Any]:
    place = {"item_id": "", "output_index": 0, "content_index": 0}
    return {"type": TEXT_DELTA, **place, "delta": text, "logprobs": [], "sequence_number": sequence}


def _part_of(event: dict[str, Any]) -> tuple[str, int]:
    index = event.get("content_index")
    return str(event.get("item_id")), index if isinstance(index, int) else 0


def _sequence(event: dict[str, Any]) -> int:
    number = event.get("sequence_number")
    return number if isinstance(number, int) else 0


def _tool_calls(event: dict[str, Any]) -> list[NewEntry]:
    item = event.get("item")
    if not isinstance(item, dict) or item.get("type") not in ("function_call", "custom_tool_call"):
        return []
    arguments = item.get("arguments", item.get("input", ""))
    call = {"call_id": item.get("call_id"), "name": item.get("name"), "arguments": arguments}
    return [event_entry(TOOL_CALL, call)]


def _usage(response: Any) -> list[NewEntry]:
    counts = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(counts, dict):
        return []
    return [event_entry(USAGE, {ours: counts[theirs] for theirs, ours in _USAGE.items() if theirs in counts})]


def _list(holder: Any, name: str) -> list[dict[str, Any]]:
    held = holder.get(name) if isinstance(holder, dict) else None
    return [item for item in held if isinstance(item, dict)] if isinstance(held, list) else []
