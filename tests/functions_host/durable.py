"""Stands for the durable extension: entities with state in memory, and the HTTP that its client speaks.

An entity takes its operations in batches, one batch at a time, and keeps what a batch made of its state. A
batch whose worker is lost is given again, whole, to the next worker: operations run at least once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streaming.cancellation import cancel_and_wait
from tests.functions_host.worker_process import Function, InvocationFailed, WorkerLost

#: Where the durable extension is on the host.
PATH: Final = "/runtime/webhooks/durabletask/"

Invoke = Callable[[Function, Mapping[str, Any]], Awaitable[dict[str, Any] | None]]


@dataclass(slots=True)
class Entity:
    """One entity."""

    name: str
    key: str
    #: JSON; ``None``: it doesn't exist.
    state: str | None = None
    operations: list[dict[str, Any]] = field(default_factory=list)
    working: asyncio.Task[None] | None = None


class Durable:
    """The entities of a task hub, and what a test can do to them."""

    def __init__(self, invoke: Invoke) -> None:
        """Have entities' functions called by ``invoke``."""
        self._invoke = invoke
        self._entities: dict[tuple[str, str], Entity] = {}
        #: By the entity's name, lower case as the extension writes it.
        self.functions: dict[str, Function] = {}
        #: While it is cleared, operations wait: as they do while a hub has no worker to give them to.
        self.dispatching = asyncio.Event()
        self.dispatching.set()
        #: Answers every call with an error, as an extension does that has lost its storage.
        self.is_away = False
        #: How many of the next batches are given again although they succeeded: their outcome is lost.
        self.lose_outcomes = 0
        #: How often a batch was given to a worker.
        self.deliveries = 0

    def routes(self) -> list[Route]:
        """What the durable client talks to."""
        entity = f"{PATH}entities/{{name}}/{{key}}"
        return [
            Route(entity, self._signal, methods=["POST"]),
            Route(entity, self._read, methods=["GET"]),
        ]

    def client_input(self, base_url: str) -> str:
        """What a function with a durable client is given: where the extension is."""
        return json.dumps(
            {
                "taskHubName": "default",
                "creationUrls": {},
                "managementUrls": {"id": "INSTANCEID"},
                "baseUrl": f"{base_url}{PATH}",
                "requiredQueryStringParameters": "code=unused",
                "rpcBaseUrl": f"{base_url}{PATH}",
            }
        )

    async def _signal(self, request: Request) -> Response:
        name, key = request.path_params["name"].lower(), request.path_params["key"]
        if self.is_away or name not in self.functions:
            return JSONResponse({"Message": "Something went wrong"}, status_code=500)
        body = await request.body()
        # Encoded once more than what it was sent as.
        operation = {
            "name": request.query_params["op"],
            "input": json.dumps(json.loads(body)),
            "isSignal": True,
        }
        entity = self._entities.setdefault((name, key), Entity(name, key))
        entity.operations.append(operation)
        if entity.working is None or entity.working.done():
            entity.working = asyncio.create_task(self._work(entity))
        return JSONResponse(None, status_code=202)

    async def _read(self, request: Request) -> Response:
        entity = self._entities.get((request.path_params["name"].lower(), request.path_params["key"]))
        if self.is_away:
            return JSONResponse({"Message": "Something went wrong"}, status_code=500)
        if entity is None or entity.state is None:
            return JSONResponse(None, status_code=404)
        return Response(entity.state, media_type="application/json")

    async def _work(self, entity: Entity) -> None:
        while entity.operations:
            await self.dispatching.wait()
            batch, entity.operations = entity.operations, []
            await self._deliver(entity, batch)

    async def _deliver(self, entity: Entity, batch: list[dict[str, Any]]) -> None:
        """Give a batch to a worker, as often as it takes."""
        context = {
            "self": {"name": entity.name, "key": entity.key},
            "exists": entity.state is not None,
            "state": entity.state,
            "batch": batch,
        }
        while True:
            self.deliveries += 1
            try:
                returned = await self._invoke(
                    self.functions[entity.name], {"context": {"string": json.dumps(context)}}
                )
            except WorkerLost:
                continue
            except InvocationFailed:
                # The extension gives the batch up with an error that nobody of ours reads.
                return
            if self.lose_outcomes > 0:
                self.lose_outcomes -= 1
                continue
            outcome = json.loads((returned or {})["json"])
            entity.state = outcome["entityState"] if outcome["entityExists"] else None
            return

    async def close(self) -> None:
        """Let the entities be."""
        working = (entity.working for entity in self._entities.values())
        await cancel_and_wait(task for task in working if task is not None)
