"""What the Responses API says: its documented objects and events."""

from __future__ import annotations

from typing import Any, Final

from openai import AsyncOpenAI, OpenAI

from tests.vendor_streams.endpoint import events

RESPONSE: Final = "resp_abc"
#: The answer's deltas: multi-byte, with line ends, and words of the format.
TEXTS: Final = ("Kyōto ⛩️\n", "event: done\n", "data: [DONE]\n\n", "🌸 at the end")
ANSWER: Final = "".join(TEXTS)
USAGE: Final = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}
Event = dict[str, Any]


def async_client(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


def client(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="none", max_retries=0)


def response(
    status: str, output: list[Event] | None = None, *, background: bool = True, **more: Any
) -> dict[str, Any]:
    return {
        "id": RESPONSE,
        "object": "response",
        "created_at": 1_760_000_000,
        "status": status,
        "background": background,
        "error": None,
        "incomplete_details": None,
        "instructions": "the agent's secret instructions",
        "model": "gpt-test",
        "output": output or [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE if status == "completed" else None,
        **more,
    }


def numbered(*sent: Event) -> list[Event]:
    return [{**event, "sequence_number": number} for number, event in enumerate(sent)]


def body(sent: list[Event]) -> bytes:
    return events(*((event["type"], event) for event in sent))


def message_item(text: str, status: str = "completed") -> Event:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    return {"id": "msg_abc", "type": "message", "role": "assistant", "status": status, "content": content}


def call_item(status: str = "completed") -> Event:
    return {
        "id": "fc_abc",
        "type": "function_call",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": '{"city":"Kyōto"}',
        "status": status,
    }


def _at(kind: str, **more: Any) -> Event:
    return {"type": kind, "item_id": "msg_abc", "output_index": 0, "content_index": 0, **more}


def delta(text: str, **more: Any) -> Event:
    return _at("response.output_text.delta", delta=text, **{"logprobs": [], **more})


def message(texts: tuple[str, ...] = TEXTS) -> list[Event]:
    """A message from its item's addition to its end."""
    text = "".join(texts)
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": message_item("", "in_progress")},
        _at("response.content_part.added", part=part),
        *(delta(each, obfuscation=f"pad{place}") for place, each in enumerate(texts)),
        _at("response.output_text.done", text=text, logprobs=[]),
        _at("response.content_part.done", part={**part, "text": text}),
        {"type": "response.output_item.done", "output_index": 0, "item": message_item(text)},
    ]


def beginning(*, background: bool = True) -> list[Event]:
    return [
        {"type": "response.created", "response": response("queued", background=background)},
        {"type": "response.in_progress", "response": response("in_progress", background=background)},
    ]


def whole(texts: tuple[str, ...] = TEXTS, *, background: bool = True) -> list[Event]:
    done = response("completed", [message_item("".join(texts))], background=background)
    end = {"type": "response.completed", "response": done}
    return numbered(*beginning(background=background), *message(texts), end)


def calling_function() -> list[Event]:
    """A first response, which asks its program for a function."""
    place = {"item_id": "fc_abc", "output_index": 0}
    return numbered(
        *beginning(),
        {"type": "response.output_item.added", "output_index": 0, "item": call_item("in_progress")},
        {"type": "response.function_call_arguments.delta", **place, "delta": '{"city":'},
        {"type": "response.function_call_arguments.done", **place, "arguments": '{"city":"Kyōto"}'},
        {"type": "response.output_item.done", "output_index": 0, "item": call_item()},
        {"type": "response.completed", "response": response("completed", [call_item()])},
    )
