"""A task hub inside this process: the library's in-memory backend, hardened for serving.

It is real as far as one process goes (queues, one operation of an entity at a time) and keeps its state in
memory: what it was doing when the process ends, nobody resumes.
"""

from __future__ import annotations

from concurrent import futures
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # it has no types of its own
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing import InMemoryOrchestrationBackend

#: The work-item stream of each worker holds a thread, the short calls share the rest.
GRPC_THREADS: Final = 32
#: The state of a conversation is one message, and 4 MiB, the default, is a few long answers. -1: no limit.
MESSAGE_LENGTH_LIMIT: Final = -1

SERVER_OPTIONS: Final = (
    # Without this a second process could listen on the same port and take half of the work in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_LENGTH_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LENGTH_LIMIT),
)


class EmbeddedTaskHub(InMemoryOrchestrationBackend):
    """The in-memory backend on a free loopback port."""

    def __init__(self) -> None:
        """Make a hub; ``start`` opens its port."""
        super().__init__(port=0)

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
        return f"127.0.0.1:{self._port}"
