"""A task hub inside this process: the library's in-memory backend, hardened for serving.

It is real as far as one process goes (queues, one operation of an entity at a time). What it was doing when
the process ends, nobody resumes. With a store, what entities remember is saved when an operation ends, before
that is acknowledged; an entity that is idle leaves the memory, and is read back when somebody asks for it.

This class alone touches private names of the backend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import grpc  # type: ignore[import-untyped]  # it has no types of its own
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.testing.in_memory_backend import EntityState

from hosting.embedded.entity_store import EntityStore
from streaming.errors import StreamUnavailable

#: The work-item stream of each worker holds a thread; each call that waits for Redis holds one for a moment,
#: and as many runs as execute at once may end at once. Threads are made when they are needed.
GRPC_THREADS: Final = 320
#: The state of a conversation is one message, and 4 MiB, the default, is a few long answers. -1: no limit.
MESSAGE_LENGTH_LIMIT: Final = -1
#: How long an entity stays in memory after its last use: the answer is asked for, the next turn comes, and if
#: Redis is flushed, streams are rebuilt from here. It must be longer than reading a state may take
#: (``LOAD_TIMEOUT``), so that nothing older is put back.
IDLE_TIME: Final = timedelta(minutes=10)
#: Entities that stay in memory; of more, those that were used longest ago leave it earlier. At some tens of
#: kilobytes each, a few hundred megabytes at most.
MOST_IN_MEMORY: Final = 5_000
#: How often idle entities are looked for: a fraction of that time.
SWEEP_INTERVAL: Final = timedelta(seconds=5)

SERVER_OPTIONS: Final = (
    # Without this a second process could listen on the same port and take half of the work in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_LENGTH_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LENGTH_LIMIT),
)

_Reply = TypeVar("_Reply")


class EmbeddedTaskHub(InMemoryOrchestrationBackend):
    """The in-memory backend on a free loopback port."""

    def __init__(self, store: EntityStore | None = None) -> None:
        """Make a hub; ``start`` opens its port.

        Args:
            store: Where entities are kept; without one, they are kept in memory alone, and for good.
        """
        super().__init__(port=0)
        self._store = store
        self._used: dict[str, float] = {}

    def start(self) -> str:
        """Listen. Returns ``host:port``.

        The base class binds all interfaces with the library's default limits, so this replaces it.
        """
        self._shutdown_event.clear()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=GRPC_THREADS), options=SERVER_OPTIONS)
        add_servicer: Any = stubs.add_TaskHubSidecarServiceServicer_to_server
        add_servicer(self, server)
        self._port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._server = server
        if self._store is not None:
            threading.Thread(target=self._sweep, args=(self._store,), name="hub-sweep", daemon=True).start()
        return f"127.0.0.1:{self._port}"

    def SignalEntity(self, request: Any, context: Any) -> Any:  # noqa: N802 - the library's name
        """Queue an operation of an entity, which is read back first if memory hasn't got it."""
        return self._with_state(request.instanceId, context, partial(super().SignalEntity, request, context))

    def GetEntity(self, request: Any, context: Any) -> Any:  # noqa: N802 - the library's name
        """An entity's state, read back first if memory hasn't got it."""
        return self._with_state(request.instanceId, context, partial(super().GetEntity, request, context))

    def CompleteEntityTask(self, request: Any, context: Any) -> Any:  # noqa: N802 - the library's name
        """Take over the state that operations left, and save it before that is acknowledged."""
        if self._store is None:
            return super().CompleteEntityTask(request, context)
        saving = None
        with self._lock:
            entity_id = self._executing(request.completionToken)
            if entity_id is not None:
                # Before the entity's next operation may begin: states are saved in their order.
                saving = self._store.save(entity_id, request.entityState.value or None)
                self._used[entity_id] = time.monotonic()
            reply = super().CompleteEntityTask(request, context)
        if saving is not None:
            self._store.wait(saving)
        return reply

    def _with_state(self, entity_id: str, context: Any, call: Callable[[], _Reply]) -> _Reply:
        """Call with the entity in memory, if it exists at all."""
        if self._store is None:
            return call()
        with self._lock:
            if entity_id in self._entities:
                return self._use(entity_id, call)
        try:
            state = self._store.load(entity_id)
        except StreamUnavailable:
            # Going on without would begin the conversation afresh, and overwrite it.
            context.abort(grpc.StatusCode.ABORTED, "The state of the entity can't be read at the moment.")
            raise
        with self._lock:
            if state is not None and entity_id not in self._entities:
                self._put_back(entity_id, state)
            return self._use(entity_id, call)

    def _put_back(self, entity_id: str, state: str) -> None:
        token = self._next_completion_token
        self._next_completion_token += 1
        self._entities[entity_id] = EntityState(entity_id, state, completion_token=token)

    def _use(self, entity_id: str, call: Callable[[], _Reply]) -> _Reply:
        reply = call()
        if entity_id in self._entities:
            self._used[entity_id] = time.monotonic()
        return reply

    def _executing(self, completion_token: str) -> str | None:
        """The entity whose operations a worker executes under this token."""
        for entity_id in self._entity_in_flight:
            entity = self._entities.get(entity_id)
            if entity is not None and str(entity.completion_token) == completion_token:
                return entity_id
        return None

    def _sweep(self, store: EntityStore) -> None:
        interval = min(SWEEP_INTERVAL, IDLE_TIME).total_seconds()
        while not self._shutdown_event.wait(interval):
            with self._lock:
                used_before = time.monotonic() - IDLE_TIME.total_seconds()
                by_age = sorted(self._used.items(), key=lambda each: each[1])
                surplus = len(by_age) - MOST_IN_MEMORY
                for place, (entity_id, used) in enumerate(by_age):
                    if used <= used_before or place < surplus:
                        self._forget(store, entity_id)

    def _forget(self, store: EntityStore, entity_id: str) -> None:
        """Drop an idle entity from memory, unless it has work to do or is not saved yet."""
        entity = self._entities.get(entity_id)
        if entity is not None:
            if entity.pending_operations or entity_id in self._entity_in_flight:
                return
            if not store.is_saved(entity_id):
                return
            del self._entities[entity_id]
        del self._used[entity_id]
