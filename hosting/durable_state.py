"""Between our words and the framework's durable state; the same for every task hub."""

from __future__ import annotations

from typing import Any

from agent_framework_durabletask import DurableAgentState, DurableAgentStateResponse
from agent_framework_durabletask import RunRequest as FrameworkRunRequest

from streaming.durable_answer import DurableAnswer
from streaming.http.task_hub import RunRequest
from streaming.text_joiner import storable


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


def find_answer(agent: str, state: dict[str, Any] | None, run: str | None) -> DurableAnswer | None:
    """The answer to a run (``None``: the latest answer) in an agent's durable state."""
    if not state:
        return None
    for entry in reversed(DurableAgentState.from_dict(state).data.conversation_history):
        if isinstance(entry, DurableAgentStateResponse) and run in (None, entry.correlation_id):
            return _answer(agent, entry)
    return None


def _answer(agent: str, entry: DurableAgentStateResponse) -> DurableAnswer:
    contents = [content.to_ai_content() for message in entry.messages for content in message.contents]
    failure = next((content for content in reversed(contents) if content.type == "error"), None)
    return DurableAnswer(
        agent=agent,
        run=entry.correlation_id or "",
        text=storable("".join(content.text or "" for content in contents if content.type == "text")),
        ended=int(entry.created_at.timestamp() * 1000),
        error=None if failure is None else failure.message or "The agent failed.",
        code=None if failure is None else failure.error_code,
    )
