"""The host process: keeps a worker, calls functions in it, and listens."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

import uvicorn
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from hosting.listener import listen
from streaming.cancellation import cancel_and_wait
from tests.functions_host.durable import Durable
from tests.functions_host.front import create_front
from tests.functions_host.worker_process import Function, WorkerProcess

#: Responses have no time limit of their own: ``functionTimeout`` bounds them.
_FORWARD: Final = ClientTimeout(total=None)
#: Where host.json's setting is overridden, as on the platform.
#: A connection is used again for less time than the worker keeps it (5 s): it may close it just then.
_KEEP_ALIVE_SECONDS: Final = 1.0
TIMEOUT_SETTING: Final = "AzureFunctionsJobHost__functionTimeout"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is run, and how."""

    folder: Path
    #: The worker's environment.
    settings: Mapping[str, str]
    #: The master key; empty: no keys are asked for, as with ``func start``.
    key: str = ""
    #: Modules that are not installed, as far as the app is concerned.
    hide: Sequence[str] = ()

    @property
    def host_json(self) -> Mapping[str, Any]:
        """The app's host settings."""
        read: dict[str, Any] = json.loads((self.folder / "host.json").read_text(encoding="utf-8"))
        return read

    @property
    def route_prefix(self) -> str:
        """Stands before every route; ``api`` unless host.json says otherwise."""
        return str(self.host_json.get("extensions", {}).get("http", {}).get("routePrefix", "api"))

    @property
    def function_timeout(self) -> timedelta:
        """How long a function may take; half an hour where nothing is said."""
        text = self.settings.get(TIMEOUT_SETTING) or str(self.host_json.get("functionTimeout", "00:30:00"))
        hours, minutes, seconds = (int(part) for part in text.split(":"))
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)


class FunctionsHost:
    """Serves a function app. Made by ``functions_host``."""

    def __init__(self, deployment: Deployment, log: IO[bytes]) -> None:
        self._deployment = deployment
        self._log = log
        self._worker: WorkerProcess | None = None
        self._starting = asyncio.Lock()
        self._timeout = deployment.function_timeout.total_seconds()
        self.key = deployment.key
        connector = TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        #: Passes requests on: to any number of connections at once, and bodies as they are.
        self.http = ClientSession(timeout=_FORWARD, connector=connector, auto_decompress=False)
        self.durable = Durable(self.invoke)
        self.functions: tuple[Function, ...] = ()
        self.url = ""

    @property
    def http_uri(self) -> str | None:
        """Where the worker takes live HTTP; ``None``: the app speaks the classic way."""
        return self._worker.http_uri if self._worker is not None else None

    def note(self, error: BaseException) -> None:
        """Put into the log why a request could not be answered."""
        self._log.write(f"host: request failed: {error!r}\n".encode())
        self._log.flush()

    def client_input(self) -> str:
        """What a function with a durable client is given."""
        return self.durable.client_input(self.url)

    async def worker(self) -> WorkerProcess:
        """The worker, which is started where none is.

        Raises:
            AppRefused: the app can't be loaded.
        """
        async with self._starting:
            if self._worker is None or self._worker.lost.is_set():
                self._worker = await WorkerProcess.start(
                    self._deployment.folder,
                    self._deployment.settings,
                    self._log,
                    hide=self._deployment.hide,
                )
                self.functions = self._worker.functions
                self.durable.functions = {
                    str(trigger["entityName"]).lower(): each
                    for each in self.functions
                    if (trigger := each.binding("entityTrigger")) is not None
                }
            return self._worker

    async def invoke(self, function: Function, inputs: Mapping[str, Any], *, invocation: str = "") -> Any:
        """Call a function; what it returns.

        Raises:
            InvocationFailed: it raised.
            WorkerLost: the worker ended before it returned.
            TimeoutError: it took longer than ``functionTimeout``; the worker is ended, as the platform does.
        """
        worker = await self.worker()
        try:
            async with asyncio.timeout(self._timeout):
                return await worker.invoke(function, invocation or str(uuid.uuid4()), inputs)
        except TimeoutError:
            await worker.kill()
            raise

    async def keep(self) -> None:
        """Start the worker again whenever it has ended."""
        while True:
            await (await self.worker()).lost.wait()

    async def close(self) -> None:
        """End the worker."""
        await self.durable.close()
        await self.http.close()
        if self._worker is not None:
            await self._worker.kill()


@asynccontextmanager
async def functions_host(
    deployment: Deployment, log: IO[bytes], *, address: tuple[str, int] = ("127.0.0.1", 0)
) -> AsyncIterator[FunctionsHost]:
    """A host that serves the app while the context lasts.

    Raises:
        AppRefused: the app can't be loaded.
    """
    host = FunctionsHost(deployment, log)
    try:
        await host.worker()
        with listen(*address) as listener:
            host.url = f"http://{address[0]}:{listener.getsockname()[1]}"
            front = create_front(host, host.functions, deployment.route_prefix, host.durable.routes())
            server = uvicorn.Server(
                uvicorn.Config(
                    front,
                    lifespan="off",
                    log_config=None,
                    ws="none",
                    # The worker's own are passed on.
                    server_header=False,
                    date_header=False,
                )
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            keeping = asyncio.create_task(host.keep())
            try:
                yield host
            finally:
                server.should_exit = server.force_exit = True
                await serving
                await cancel_and_wait({keeping})
    finally:
        await host.close()


def worker_environment(**settings: str) -> dict[str, str]:
    """An environment of a machine that has no settings but these."""
    inherited = {
        name: os.environ[name] for name in ("HOME", "PATH", "SYSTEMROOT", "TEMP") if name in os.environ
    }
    return {**inherited, **settings}
