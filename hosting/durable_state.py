"""Between our words and the framework's durable state; the same for every task hub."""

from __future__ import annotations

from typing import Any

from agent_framework_durabletask import DurableAgentState, DurableAgentStateResponse
from agent_framework_durabletask import RunRequest as FrameworkRunRequest

from streaming.http.task_hub import DurableAnswer, RunRequest


def to_framework(request: RunRequest) -> dict[str, Any]:
    """The run request as the agent's entity takes it."""
    return FrameworkRunRequest(
        message=request.message,
        correlation_id=request.run,
        role=request.role,
        enable_tool_calls=request.enable_tool_calls,
        wait_for_response=False,
        options=dict(request.options),
    ).to_dict()


def find_answer(state: dict[str, Any] | None, run: str | None) -> DurableAnswer | None:
    """The answer to a run (``None``: the latest answer) in an agent's durable state."""
    if not state:
        return None
    for entry in reversed(DurableAgentState.from_dict(state).data.conversation_history):
        if isinstance(entry, DurableAgentStateResponse) and run in (None, entry.correlation_id):
            return _answer(entry)
    return None


def _answer(entry: DurableAgentStateResponse) -> DurableAnswer:
    contents = [content.to_ai_content() for message in entry.messages for content in message.contents]
    text = "".join(content.text or "" for content in contents if content.type == "text")
    errors = [content for content in contents if content.type == "error"]
    run = entry.correlation_id or ""
    if not errors:
        return DurableAnswer(run=run, text=text)
    failure = errors[-1]
    return DurableAnswer(
        run=run, text=text, error=failure.message or "The agent failed.", code=failure.error_code
    )
