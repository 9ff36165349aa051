"""The host's end of a worker: starts the process, asks it things, notices its end."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from streaming.cancellation import cancel_and_wait
from tests.functions_host.worker import LINE_LIMIT

_SCRIPT: Final = Path(__file__).with_name("worker.py")
#: Loading an app takes one to three seconds, more on a machine that is busy.
START_PATIENCE: Final = 60.0


class WorkerLost(Exception):
    """The worker's process ended; what it was asked is unanswered."""


class AppRefused(Exception):
    """The worker's code could not load the function app; the message is what it says."""


async def _until_accepted(uri: str) -> None:
    """Wait until a server listens: the worker says where before it does, and the platform tries again."""
    address = urlsplit(uri)
    while True:
        try:
            _, writer = await asyncio.open_connection(address.hostname, address.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


class InvocationFailed(Exception):
    """A function raised; the message is what the worker says of it."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the worker has indexed it."""

    id: str
    name: str
    bindings: tuple[Mapping[str, Any], ...]

    def binding(self, kind: str) -> Mapping[str, Any] | None:
        """Its binding of a type."""
        return next((each for each in self.bindings if each["type"] == kind), None)


class WorkerProcess:
    """One worker with the app loaded. Made by ``start``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.functions: tuple[Function, ...] = ()
        #: Where the app takes live HTTP; ``None``: it speaks the classic way.
        self.http_uri: str | None = None
        self.lost = asyncio.Event()

    @classmethod
    async def start(
        cls, folder: Path, settings: Mapping[str, str], log: IO[bytes], *, hide: Sequence[str] = ()
    ) -> WorkerProcess:
        """Start a worker and have it load the app.

        Args:
            folder: The app's.
            settings: All of the worker's environment.
            log: What it says goes there.
            hide: Modules that are not installed, as far as it is concerned.

        Raises:
            AppRefused: the app can't be loaded.
        """
        connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.put_nowait((reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=LINE_LIMIT)
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-X", "faulthandler", str(_SCRIPT), "127.0.0.1", str(port), str(folder), *hide),
            env=dict(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(START_PATIENCE):
                await worker._connect(connected)
        except BaseException:
            await worker.kill()
            raise
        finally:
            # Not waited for: the worker's own connection stays open.
            server.close()
        return worker

    async def _connect(
        self, connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    ) -> None:
        coming = asyncio.create_task(connected.get())
        ended = asyncio.create_task(self._process.wait())
        await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait((ended,))
        if not coming.done():
            await cancel_and_wait((coming,))
            raise AppRefused(f"the worker ended with status {self._process.returncode}")
        reader, self._writer = coming.result()
        self._reading = asyncio.create_task(self._read(reader))
        loaded = await self._ask({"ask": "init"})
        if "error" in loaded:
            raise AppRefused(loaded["error"])
        self.functions = tuple(
            Function(each["id"], each["name"], tuple(each["bindings"])) for each in loaded["functions"]
        )
        self.http_uri = loaded["http_uri"]
        if self.http_uri is not None:
            await _until_accepted(self.http_uri)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def invoke(
        self, function: Function, invocation: str, inputs: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Call a function; what it returns, ``None`` for nothing.

        Raises:
            InvocationFailed: it raised.
            WorkerLost: the worker ended before it returned.
        """
        asked = {"ask": "invoke", "function": function.id, "invocation": invocation, "inputs": inputs}
        outcome = await self._ask(asked)
        if "error" in outcome:
            raise InvocationFailed(outcome["error"])
        returned: dict[str, Any] | None = outcome["returned"]
        return returned

    async def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        if self._writer is None or self.lost.is_set():
            raise WorkerLost
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(json.dumps({"number": number, **line}).encode() + b"\n")
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while raw := await reader.readline():
                line = json.loads(raw)
                waiting = self._waiting.get(line["number"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(line)
        except ConnectionError:
            pass
        finally:
            self.lost.set()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(WorkerLost())

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        await self._process.wait()
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            await self._reading
