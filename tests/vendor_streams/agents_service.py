"""What the Azure AI Agents service says: its documented objects and events, and the vendor's real clients."""

from __future__ import annotations

from typing import Any, Final

from azure.ai.agents import AgentsClient
from azure.ai.agents.aio import AgentsClient as AsyncAgentsClient
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.policies import SansIOHTTPPolicy

THREAD: Final = "thread_abc"
RUN: Final = "run_abc"
Event = tuple[str, Any]
DONE: Final[Event] = ("done", "[DONE]")
_TOKEN: Final = AccessToken("none", 4_102_444_800)


class _Credential(TokenCredential):
    """Opens nothing; the endpoint asks for nothing."""

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return _TOKEN


class _AsyncCredential(AsyncTokenCredential):
    """Opens nothing; the endpoint asks for nothing."""

    async def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return _TOKEN

    async def close(self) -> None:
        """Nothing to close."""

    async def __aexit__(self, *_error: object) -> None:
        """Nothing to close."""


def async_client(url: str) -> AsyncAgentsClient:
    return AsyncAgentsClient(url, _AsyncCredential(), authentication_policy=SansIOHTTPPolicy(), retry_total=0)


def client(url: str) -> AgentsClient:
    return AgentsClient(url, _Credential(), authentication_policy=SansIOHTTPPolicy(), retry_total=0)


def run_event(status: str, **more: Any) -> Event:
    run = {
        "id": RUN,
        "object": "thread.run",
        "created_at": 1_760_000_000,
        "thread_id": THREAD,
        "assistant_id": "asst_abc",
        "status": status,
        "instructions": "the agent's secret instructions",
        "tools": [],
        "usage": None,
        **more,
    }
    return f"thread.run.{status}", run


def message_event(status: str, text: str = "", message: str = "msg_abc") -> Event:
    name = "created" if status == "created" else status
    content = [{"type": "text", "text": {"value": text, "annotations": []}}] if text else []
    return f"thread.message.{name}", {
        "id": message,
        "object": "thread.message",
        "created_at": 1_760_000_000,
        "thread_id": THREAD,
        "run_id": RUN,
        "assistant_id": "asst_abc",
        "role": "assistant",
        "status": "in_progress" if status == "created" else status,
        "content": content,
    }


def delta(
    text: str, message: str = "msg_abc", annotations: list[dict[str, Any]] | None = None, index: int = 0
) -> Event:
    part: dict[str, Any] = {"index": index, "type": "text", "text": {"value": text}}
    if annotations is not None:
        part["text"]["annotations"] = annotations
    return "thread.message.delta", {
        "id": message,
        "object": "thread.message.delta",
        "delta": {"content": [part]},
    }


def step_event(status: str, details: dict[str, Any] | None = None) -> Event:
    return f"thread.run.step.{status}", {
        "id": "step_abc",
        "object": "thread.run.step",
        "created_at": 1_760_000_000,
        "run_id": RUN,
        "assistant_id": "asst_abc",
        "thread_id": THREAD,
        "type": "tool_calls" if details else "message_creation",
        "status": "in_progress" if status == "created" else status,
        "step_details": details
        or {"type": "message_creation", "message_creation": {"message_id": "msg_abc"}},
    }


def tool_step(status: str, output: str | None = None) -> Event:
    function = {"name": "get_weather", "arguments": '{"city":"Kyōto"}', "output": output}
    call = {"id": "call_1", "type": "function", "function": function}
    return step_event(status, {"type": "tool_calls", "tool_calls": [call]})


STEP_DELTA: Final[Event] = (
    "thread.run.step.delta",
    {
        "id": "step_abc",
        "object": "thread.run.step.delta",
        "delta": {
            "step_details": {
                "type": "tool_calls",
                "tool_calls": [
                    {"index": 0, "id": "call_1", "type": "function", "function": {"arguments": "{"}}
                ],
            }
        },
    },
)

REQUIRES_ACTION: Final = run_event(
    "requires_action",
    required_action={
        "type": "submit_tool_outputs",
        "submit_tool_outputs": {
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Kyōto"}'},
                }
            ]
        },
    },
)
#: The answer's deltas: multi-byte, with line ends, half an emoji in each of two, and words of the format.
TEXTS: Final = ("Kyōto ⛩️\n", "", "event: done\n", "data: [DONE]\r", "\n\n", "🌸 at the end")
ANSWER: Final = "".join(TEXTS)
USAGE: Final = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def beginning() -> list[Event]:
    return [run_event("created"), run_event("queued"), run_event("in_progress")]


def message(texts: tuple[str, ...] = TEXTS, name: str = "msg_abc") -> list[Event]:
    """A message with its step, from its creation to its end."""
    return [
        step_event("created"),
        step_event("in_progress"),
        message_event("created", message=name),
        message_event("in_progress", message=name),
        *(delta(text, name) for text in texts),
        message_event("completed", "".join(texts), name),
        step_event("completed"),
    ]


def whole_run() -> list[Event]:
    return [*beginning(), *message(), run_event("completed", usage=USAGE), DONE]


def calling_tools() -> list[Event]:
    """A first response, which ends with a call of a function."""
    return [
        *beginning(),
        tool_step("created"),
        tool_step("in_progress"),
        STEP_DELTA,
        REQUIRES_ACTION,
        DONE,
    ]


def after_tools(texts: tuple[str, ...] = TEXTS) -> list[Event]:
    """The second response, once the outputs were submitted."""
    return [
        tool_step("completed", "sunny"),
        run_event("queued"),
        run_event("in_progress"),
        *message(texts),
        run_event("completed", usage=USAGE),
        DONE,
    ]
