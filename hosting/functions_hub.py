"""The function app's task hub: durable entities, through an invocation's durable client binding."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final

import azure.durable_functions as df  # type: ignore[import-untyped]  # it has no types of its own
from agent_framework_durabletask import AgentSessionId

from hosting.durable_state import find_answer, to_framework
from streaming.durable_answer import DurableAnswer
from streaming.errors import TaskHubUnavailable
from streaming.http.task_hub import RunRequest

_log = logging.getLogger(__name__)

#: A call takes milliseconds: the client asks the Functions host on this machine, which asks the scheduler.
#: After this the hub counts as away.
CALL_TIMEOUT: Final = timedelta(seconds=10)
#: A conversation that nobody has: reading it costs the hub a look-up.
PROBE_CONVERSATION: Final = "health-probe"


class FunctionsHub:
    """Starts runs and reads their durable state. Made for one invocation, as its client is."""

    def __init__(self, client: df.DurableOrchestrationClient, *, probe_agent: str) -> None:
        """Use ``client``.

        Args:
            client: The invocation's durable client.
            probe_agent: Asked for when the hub's health is. It must be hosted here: some versions of the
                durable extension refuse to read an entity that their app doesn't have.
        """
        self._client = client
        self._probe_agent = probe_agent

    async def start(self, request: RunRequest) -> None:
        """Signal the agent's entity, which queues the run behind the conversation's earlier ones.

        Raises:
            TaskHubUnavailable: the hub does not answer.
        """
        entity = _entity(request.agent, request.conversation_id)
        await _answer_of(self._client.signal_entity(entity, "run", to_framework(request)))

    async def answer(self, agent: str, conversation_id: str, run: str | None) -> DurableAnswer | None:
        """The answer that the agent's entity holds to a run; ``None``: not there (yet).

        Raises:
            TaskHubUnavailable: the hub does not answer.
        """
        entity = await _answer_of(self._client.read_entity_state(_entity(agent, conversation_id)))
        state = entity.entity_state if entity.entity_exists else None
        # An entity that was deleted has a state that is not one.
        return find_answer(agent, state if isinstance(state, dict) else None, run)

    async def is_healthy(self) -> bool:
        """Whether the hub answers."""
        try:
            await self.answer(self._probe_agent, PROBE_CONVERSATION, None)
        except TaskHubUnavailable:
            return False
        return True


async def _answer_of(call: Any) -> Any:
    try:
        async with asyncio.timeout(CALL_TIMEOUT.total_seconds()):
            return await call
    except Exception as error:  # the client raises bare Exception for a status that it doesn't expect
        _log.warning("task hub call failed: error=%s", type(error).__name__)
        raise TaskHubUnavailable from error


def _entity(agent: str, conversation_id: str) -> df.EntityId:
    session = AgentSessionId(name=agent, key=conversation_id)
    return df.EntityId(name=session.entity_name, key=session.key)
