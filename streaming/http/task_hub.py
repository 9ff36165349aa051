"""What the HTTP endpoints ask of a durable task hub, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from streaming.durable_answer import DurableAnswer


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One message to an agent."""

    agent: str
    conversation_id: str
    run: str
    message: str
    role: str = "user"
    enable_tool_calls: bool = True
    #: For the model, such as ``response_format`` with a JSON schema.
    options: dict[str, Any] = field(default_factory=dict)


class TaskHub(Protocol):
    """Starts runs durably and reads their durable state."""

    async def start(self, request: RunRequest) -> None:
        """Hand the run to its agent.

        Raises:
            TaskHubUnavailable: the hub does not answer.
        """

    async def answer(self, agent: str, conversation_id: str, run: str | None) -> DurableAnswer | None:
        """The answer that the hub holds to a run (``None``: to the latest); ``None``: not there (yet).

        Raises:
            TaskHubUnavailable: the hub does not answer.
        """

    async def is_healthy(self) -> bool:
        """Whether the hub answers."""
