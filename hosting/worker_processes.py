"""More processes that serve beside the one that executes agents, on the same port.

Each gets a listening socket of its own from the process that starts them, so that none is ever missing; the
system shares out the connections. A process that dies is started again on its socket. They share nothing but
Redis and the task hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from streaming.cancellation import cancel_and_wait

_log = logging.getLogger(__name__)

#: What tells a process that it is one of these: its socket's number.
_LISTENER: Final = "STANDALONE_WORKER_LISTENER"
#: Said once a process serves.
_READY: Final = b"ready\n"
#: Loading takes one to three seconds, more on a machine that is busy.
START_PATIENCE: Final = timedelta(seconds=60)
#: A process that died is started again after this pause: one that can't start is not to take a processor.
RESTART_PAUSE: Final = timedelta(seconds=1)
#: How long processes may take to stop: longer than the server's own grace.
STOP_PATIENCE: Final = timedelta(seconds=6)


class WorkerNotStarted(Exception):
    """A process ended before it served; its log says why."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What one of these processes is given."""

    listener: socket.socket
    #: Where the embedded task hub is; empty where there is a scheduler.
    task_hub: str
    #: What it has to have set, beside its environment.
    settings: Mapping[str, str]

    @classmethod
    def take(cls) -> WorkerPlace | None:
        """This process's own; ``None``: it is the one that starts the others. Waits until it is told.

        Raises:
            EOFError: the process that started this one has ended.
        """
        descriptor = os.environ.get(_LISTENER)
        if descriptor is None:
            return None
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        told = json.loads(line)
        return cls(socket.socket(fileno=int(descriptor)), told["task_hub"], told["settings"])

    def serving(self) -> None:
        """Say that this process serves."""
        os.write(sys.stdout.fileno(), _READY)

    async def until_orphaned(self) -> None:
        """Wait until the process that started this one has ended."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        # Nothing is ever written to it.
        await reader.read()


class WorkerProcesses:
    """The processes, while inside."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        """Start one on each of ``listeners``, which this process keeps open."""
        self._listeners = listeners
        self._processes: dict[socket.socket, asyncio.subprocess.Process] = {}
        self._told = b""
        self._watches: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Start them: they load while this process does. They serve once they are told what."""
        try:
            for listener in self._listeners:
                await self._start(listener)
        except BaseException:
            await self.stop()
            raise
        return self

    async def begin(self, *, task_hub: str, settings: Mapping[str, str]) -> None:
        """Have them serve.

        Args:
            task_hub: Where the embedded task hub is; empty where there is a scheduler.
            settings: Added to their environment.

        Raises:
            WorkerNotStarted: one does not.
        """
        self._told = json.dumps({"task_hub": task_hub, "settings": dict(settings)}).encode() + b"\n"
        await asyncio.gather(*(self._tell(process) for process in self._processes.values()))
        self._watches = {asyncio.create_task(self._keep(each), name="worker") for each in self._listeners}

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop them."""
        await self.stop()

    def ask_to_stop(self) -> None:
        """Have them let their readers go; they end a moment later."""
        for watch in self._watches:
            watch.cancel()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    @property
    def pids(self) -> list[int]:
        """The processes' numbers."""
        return [process.pid for process in self._processes.values()]

    async def _start(self, listener: socket.socket) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "standalone"),
            env={**os.environ, _LISTENER: str(listener.fileno())},
            pass_fds=[listener.fileno()],
            # Its end tells the process that this one has ended.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._processes[listener] = process
        return process

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise WorkerNotStarted
        try:
            async with asyncio.timeout(START_PATIENCE.total_seconds()):
                process.stdin.write(self._told)
                answer = await process.stdout.readline()
        except (OSError, TimeoutError) as error:
            raise WorkerNotStarted from error
        if answer != _READY:
            raise WorkerNotStarted

    async def _keep(self, listener: socket.socket) -> None:
        """Start a process again whenever it ends."""
        while True:
            status = await self._processes[listener].wait()
            _log.warning("worker process ended, another is started: %s", _how(status))
            await asyncio.sleep(RESTART_PAUSE.total_seconds())
            try:
                await self._tell(await self._start(listener))
            except (WorkerNotStarted, OSError) as error:
                _log.error("worker process did not start: error=%s", type(error).__name__)

    async def stop(self) -> None:
        """Stop them, and wait until they have ended."""
        await cancel_and_wait(self._watches)
        self.ask_to_stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE.total_seconds()):
                await self._wait_for_all()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await self._wait_for_all()

    async def _wait_for_all(self) -> None:
        for process in self._processes.values():
            await process.wait()


def _how(status: int) -> str:
    return f"signal={signal.Signals(-status).name}" if status < 0 else f"status={status}"


async def stop_when_orphaned(place: WorkerPlace, stop: Callable[[], None]) -> None:
    """Stop once the process that started this one has ended."""
    await place.until_orphaned()
    stop()
