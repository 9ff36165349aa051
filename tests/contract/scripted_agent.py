"""An agent that says what a test tells it to, in the framework's own durable entity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agent_framework import AgentResponse, AgentResponseUpdate, AgentSession, Content, Message, ResponseStream
from agent_framework_durabletask import AgentEntity, AgentEntityStateProviderMixin, RunRequest

from hosting.streamable_agent import StreamableAgent
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.writing.leases import LeaseKeeper
from tests.contract.reading import BOUND

#: What an agent does next: give contents, raise, or wait for an event.
Step = Sequence[Content] | AgentResponseUpdate | Exception | asyncio.Event


def said(*texts: str) -> list[Step]:
    """A chunk for each text."""
    return [[Content.from_text(text)] for text in texts]


class ScriptedAgent:
    """Follows a script, and counts how often it was asked to."""

    def __init__(self, *steps: Step, final: AgentResponse[Any] | None = None) -> None:
        self.id = "scripted"
        self.name: str | None = "Scripted"
        self.description: str | None = None
        self.steps = steps
        self.final = final
        self.runs = 0
        self.closed = 0
        self.messages: list[Message] = []

    def create_session(self, **_kwargs: Any) -> AgentSession:
        """A new session."""
        return AgentSession()

    def get_session(self, *_args: Any, **_kwargs: Any) -> AgentSession:
        """Any session."""
        return AgentSession()

    def run(self, messages: Any = None, *, stream: bool = False, **_kwargs: Any) -> Any:
        """Follow the script."""
        self.runs += 1
        self.messages = list(messages)
        response = ResponseStream(self._updates(), finalizer=self._finish)
        return response if stream else response.get_final_response()

    async def _updates(self) -> AsyncIterator[AgentResponseUpdate]:
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, AgentResponseUpdate):
                    yield step
                else:
                    yield AgentResponseUpdate(contents=list(step), role="assistant")
        finally:
            self.closed += 1

    def _finish(self, updates: Sequence[AgentResponseUpdate]) -> AgentResponse[Any]:
        return self.final or AgentResponse.from_updates(updates)


class DurableConversation(AgentEntityStateProviderMixin):
    """The framework's entity of one conversation, its state kept here."""

    def __init__(
        self,
        handler: RedisStreamResponseHandler,
        agent: ScriptedAgent,
        conversation: str = "c",
        leases: LeaseKeeper | None = None,
    ) -> None:
        self.saved: dict[str, Any] = {}
        self._conversation = conversation
        self._callback = RedisStreamCallback(lambda: handler, leases)
        self._agent = agent

    def _get_state_dict(self) -> dict[str, Any]:
        return self.saved

    def _set_state_dict(self, state: dict[str, Any]) -> None:
        self.saved = state

    def _get_session_id_from_entity(self) -> str:
        return self._conversation

    def start(self, run: str, message: str = "go") -> asyncio.Task[AgentResponse[Any]]:
        """Execute a run, as a task hub does: each operation in its own task, on the last saved state."""
        self._state_cache = None
        entity = AgentEntity(StreamableAgent(self._agent), self._callback, state_provider=self)
        return asyncio.create_task(entity.run(RunRequest(message=message, correlation_id=run)))

    async def run(self, run: str, message: str = "go") -> AgentResponse[Any]:
        """Execute a run to its end."""
        async with asyncio.timeout(BOUND):
            return await self.start(run, message)
