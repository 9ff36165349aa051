"""The standalone service with an agent that fails as it is told to: ``python -m tests.faulty_service``.

A message is a JSON list of steps for the agent's model, such as ``[{"say": "Hello"}, {"raise": "no"}]``:

=========================================  ===========================================================
``{"say": text, "times": n}``              writes a text, n times (once, if not said)
``{"call": tool, "seconds": s}``           has the framework call one of the tools below, then goes on
``{"quote": true}``                        writes what the last tool answered, as the model was told
``{"stall": seconds}``                     is silent
``{"until": path}``                        is silent until there is a file of this name
``{"raise": message}``                     fails
``{"history": true}``                      writes the texts of the conversation's earlier messages
=========================================  ===========================================================
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest.mock import patch
from uuid import uuid4

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatOptions,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)
from agent_framework.observability import ChatTelemetryLayer

import standalone
from agents import HostedAgent
from streaming.settings import ModelSettings

AGENT: Final = "Faulty"
#: How often a model that waits for a file looks for it.
_LOOK_SECONDS: Final = 0.02
#: Stands for what must never be shown: a tool's or model's own error.
SECRET: Final = "sk-secret-of-the-tool"


def block(seconds: float) -> str:
    """Block a thread."""
    time.sleep(seconds)
    return "blocked a thread"


async def block_loop(seconds: float) -> str:
    """Block the event loop that all agents share, as a careless tool does."""
    time.sleep(seconds)  # noqa: ASYNC251 - that is its purpose
    return "blocked the loop"


async def wait(seconds: float) -> str:
    """Wait as one should."""
    await asyncio.sleep(seconds)
    return "waited"


def explode(seconds: float) -> str:
    """Fail."""
    raise ValueError(f"{SECRET} after {seconds} s")


class FaultyChatClient(
    FunctionInvocationLayer[ChatOptions[Any]],
    ChatMiddlewareLayer[ChatOptions[Any]],
    ChatTelemetryLayer[ChatOptions[Any]],
    BaseChatClient[ChatOptions[Any]],
):
    """A model that takes the steps of the latest user message."""

    OTEL_PROVIDER_NAME: ClassVar[str] = "faulty"

    def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],  # noqa: ARG002 - the framework's signature
        **kwargs: Any,  # noqa: ARG002 - the framework's signature
    ) -> Awaitable[ChatResponse] | ResponseStream[ChatResponseUpdate, ChatResponse]:
        response = self._build_response_stream(_take_steps(messages))
        return response if stream else response.get_final_response()


async def _take_steps(messages: Sequence[Message]) -> AsyncIterator[ChatResponseUpdate]:
    latest = max(place for place, message in enumerate(messages) if message.role == "user")
    results = [
        content
        for message in messages[latest:]
        for content in message.contents
        if content.type == "function_result"
    ]
    response_id = uuid4().hex
    for step in _after_calls(json.loads(messages[latest].text), len(results)):
        for content in await _contents(step, results, messages[:latest]):
            yield ChatResponseUpdate(
                contents=[content],
                role="assistant",
                response_id=response_id,
                message_id=response_id,
                created_at=datetime.now(UTC).isoformat(),
            )
        if "call" in step:
            return


def _after_calls(steps: list[dict[str, Any]], answered: int) -> list[dict[str, Any]]:
    """The steps that are left once so many calls are answered."""
    calls = [place for place, step in enumerate(steps) if "call" in step]
    return steps[calls[answered - 1] + 1 :] if answered else steps


async def _contents(
    step: Mapping[str, Any], results: Sequence[Content], earlier: Sequence[Message]
) -> list[Content]:
    if "raise" in step:
        raise ValueError(step["raise"])
    if "stall" in step:
        await asyncio.sleep(step["stall"])
        return []
    if "until" in step:
        while not await asyncio.to_thread(Path(step["until"]).exists):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(_LOOK_SECONDS)
        return []
    if "call" in step:
        arguments = json.dumps({"seconds": step.get("seconds", 0)})
        return [Content.from_function_call(call_id=uuid4().hex, name=step["call"], arguments=arguments)]
    if "quote" in step:
        return [Content.from_text(str(results[-1].result))]
    if "history" in step:
        return [Content.from_text(json.dumps([message.text for message in earlier]))]
    return [Content.from_text(step["say"]) for _ in range(step.get("times", 1))]


def create_agents(_model: ModelSettings) -> list[HostedAgent]:
    """The one agent, in place of the sample's."""
    agent = Agent(client=FaultyChatClient(), name=AGENT, tools=[block, block_loop, wait, explode])
    return [HostedAgent(agent, waits_by_default=False)]


if __name__ == "__main__":
    # The service as it is, but for its agents.
    with patch("standalone.create_agents", create_agents):
        standalone._exit(standalone.main())
