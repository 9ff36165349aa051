"""Agents on a ``durabletask`` worker, and the client that starts their runs: for the standalone host.

The task hub is the Durable Task Scheduler where one is set, else the embedded one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # it has no types of its own
from agent_framework import SupportsAgentRun
from agent_framework_durabletask import (
    AgentResponseCallbackProtocol,
    AgentSessionId,
    DurableAIAgentWorker,
)
from durabletask.client import AsyncTaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.grpc_options import GrpcChannelOptions, GrpcWorkerResiliencyOptions
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

from hosting.durable_state import find_answer, to_framework
from hosting.embedded.entity_store import EntityStore
from hosting.embedded.task_hub import MESSAGE_LENGTH_LIMIT, EmbeddedTaskHub
from hosting.streamable_agent import StreamableAgent
from streaming.durable_answer import DurableAnswer
from streaming.errors import TaskHubUnavailable
from streaming.http.task_hub import RunRequest
from streaming.settings import SchedulerSettings

#: The library would print its own lines to its own handler.
_library_log = logging.getLogger("durabletask")

#: Each run holds a thread of the worker while its coroutine runs on the agents' loop; the library's default
#: (processors + 4) would let six runs at once.
RUNS_AT_ONCE: Final = 256
#: A call to the hub takes milliseconds; after this it counts as away.
CALL_TIMEOUT_SECONDS: Final = 10.0
#: How long stopping waits for runs that were told to stop.
STOP_TIMEOUT_SECONDS: Final = 5.0

_CHANNEL_OPTIONS: Final = GrpcChannelOptions(
    max_receive_message_length=MESSAGE_LENGTH_LIMIT, max_send_message_length=MESSAGE_LENGTH_LIMIT
)
_CONCURRENCY: Final = ConcurrencyOptions(
    maximum_concurrent_entity_work_items=RUNS_AT_ONCE, maximum_thread_pool_workers=RUNS_AT_ONCE
)
#: For the embedded hub: a stream inside the process doesn't break in silence. By default the worker would
#: take two idle minutes for that, hang up, and take no runs for up to half a minute.
_RESILIENCE: Final = GrpcWorkerResiliencyOptions(silent_disconnect_timeout_seconds=0)


@dataclass(frozen=True, slots=True)
class HubConnection:
    """How to reach the task hub."""

    worker: TaskHubGrpcWorker
    client: AsyncTaskHubGrpcClient
    embedded: EmbeddedTaskHub | None = None
    #: Where the embedded hub is, for other processes' clients.
    address: str | None = None
    #: Where the embedded hub keeps what agents remember.
    store: EntityStore | None = None


def connect_hub(scheduler: SchedulerSettings | None, store: EntityStore | None = None) -> HubConnection:
    """Connect to the scheduler, or start an embedded hub where none is set. Call it on the serving loop.

    Args:
        scheduler: Where the scheduler is.
        store: Where an embedded hub keeps what agents remember; without one it forgets when it stops.
    """
    if scheduler is not None:
        return HubConnection(_scheduler_worker(scheduler), _scheduler_client(scheduler))
    hub = EmbeddedTaskHub(store)
    address = hub.start()
    worker = TaskHubGrpcWorker(
        host_address=address,
        channel_options=_CHANNEL_OPTIONS,
        concurrency_options=_CONCURRENCY,
        resiliency_options=_RESILIENCE,
        logger=_library_log,
    )
    return HubConnection(worker, _embedded_client(address), hub, address, store)


def connect_client(scheduler: SchedulerSettings | None, address: str) -> AsyncTaskHubGrpcClient:
    """Connect to the scheduler, or to the embedded hub of another process. Call it on the serving loop."""
    return _scheduler_client(scheduler) if scheduler is not None else _embedded_client(address)


def _embedded_client(address: str) -> AsyncTaskHubGrpcClient:
    return AsyncTaskHubGrpcClient(host_address=address, channel_options=_CHANNEL_OPTIONS, logger=_library_log)


def _scheduler_worker(scheduler: SchedulerSettings) -> TaskHubGrpcWorker:
    # Here and below: it brings Azure's SDK, a tenth of the time to start, which nothing else needs.
    from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker  # noqa: PLC0415

    credential, _ = _credentials(scheduler)
    return DurableTaskSchedulerWorker(
        host_address=scheduler.endpoint,
        taskhub=scheduler.task_hub,
        token_credential=credential,
        secure_channel=scheduler.is_secure,
        channel_options=_CHANNEL_OPTIONS,
        concurrency_options=_CONCURRENCY,
        logger=_library_log,
    )


def _scheduler_client(scheduler: SchedulerSettings) -> AsyncTaskHubGrpcClient:
    from durabletask.azuremanaged.client import AsyncDurableTaskSchedulerClient  # noqa: PLC0415

    _, credential = _credentials(scheduler)
    return AsyncDurableTaskSchedulerClient(
        host_address=scheduler.endpoint,
        taskhub=scheduler.task_hub,
        token_credential=credential,
        secure_channel=scheduler.is_secure,
        channel_options=_CHANNEL_OPTIONS,
        logger=_library_log,
    )


def _credentials(scheduler: SchedulerSettings) -> tuple[Any, Any]:
    """The worker's (blocking) and the client's (asyncio) credential."""
    if scheduler.authentication == "none":
        return None, None
    from azure import identity  # noqa: PLC0415 - takes a noticeable part of a start, and is seldom needed
    from azure.identity import aio  # noqa: PLC0415 - see above

    if scheduler.authentication == "managedidentity":
        return (
            identity.ManagedIdentityCredential(client_id=scheduler.client_id),
            aio.ManagedIdentityCredential(client_id=scheduler.client_id),
        )
    return identity.DefaultAzureCredential(), aio.DefaultAzureCredential()


class DurableAgentsClient:
    """Starts runs of agents that some process hosts."""

    def __init__(self, client: AsyncTaskHubGrpcClient) -> None:
        self._client = client

    async def start(self, request: RunRequest) -> None:
        """Signal the agent's entity, which queues the run behind the conversation's earlier ones.

        Raises:
            TaskHubUnavailable: the hub does not answer.
        """
        entity = _entity(request.agent, request.conversation_id)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                await self._client.signal_entity(entity, "run", to_framework(request))
        except (grpc.RpcError, TimeoutError) as error:
            raise TaskHubUnavailable from error

    async def answer(self, agent: str, conversation_id: str, run: str | None) -> DurableAnswer | None:
        """The answer that the agent's entity holds to a run; ``None``: not there (yet).

        Raises:
            TaskHubUnavailable: the hub does not answer.
        """
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                entity = await self._client.get_entity(_entity(agent, conversation_id))
        except (grpc.RpcError, TimeoutError) as error:
            raise TaskHubUnavailable from error
        state = entity.get_state() if entity is not None else None
        return find_answer(agent, json.loads(state) if state else None, run)

    async def is_healthy(self) -> bool:
        """Whether the hub answers."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                # Not an entity: an embedded hub would look for it in Redis, whose health is another matter.
                await self._client.get_orchestration_state("health")
        except (grpc.RpcError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


class DurableAgents(DurableAgentsClient):
    """Hosts agents and starts their runs."""

    def __init__(self, connection: HubConnection, callback: AgentResponseCallbackProtocol) -> None:
        """Host agents on ``connection``, telling ``callback`` of their updates."""
        super().__init__(connection.client)
        self._connection = connection
        self._worker = DurableAIAgentWorker(connection.worker, callback=callback)

    def host(
        self,
        agents: Iterable[SupportsAgentRun],
        *,
        run_timeout: timedelta,
        callbacks: Mapping[str, AgentResponseCallbackProtocol] | None = None,
    ) -> None:
        """Register agents and begin to work.

        Args:
            agents: What to host.
            run_timeout: None of their runs may take longer.
            callbacks: By an agent's name, what is told of its updates in place of the default.
        """
        for agent in agents:
            callback = (callbacks or {}).get(agent.name or "")
            self._worker.add_agent(StreamableAgent(agent, run_timeout), callback)
        self._worker.start()

    async def close(self) -> None:
        """Stop taking work, and wait a while for the work in progress."""
        stopping = threading.Thread(target=self._worker.stop, name="worker-stop", daemon=True)
        stopping.start()
        # The library waits without a limit; a tool that blocks its thread must not keep the service.
        await asyncio.to_thread(stopping.join, STOP_TIMEOUT_SECONDS)
        await super().close()
        if self._connection.embedded is not None:
            await asyncio.to_thread(self._connection.embedded.stop, 0.0)
        if self._connection.store is not None:
            await self._connection.store.close()


def _entity(agent: str, conversation_id: str) -> EntityInstanceId:
    session = AgentSessionId(name=agent, key=conversation_id)
    return EntityInstanceId(entity=session.entity_name, key=session.key)
