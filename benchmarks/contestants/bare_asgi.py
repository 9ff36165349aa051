"""The floor of serving under an HTTP server: uvicorn and a bare ASGI application, no Redis, no framework.

    python -m benchmarks.contestants.bare_asgi PORT STREAMS RATE SECONDS

It makes the chunks itself. Each connection has its task, as ASGI wants it, which sends what has accumulated.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final

import uvloop
from starlette.types import Receive, Scope, Send

from benchmarks.contestants.bare_sockets import event
from benchmarks.contestants.contestant import Contestant, Kind, own_program
from benchmarks.loads.pacing import TICK, Pace, due, pace_of, say_outcome, wait_for_go
from benchmarks.loads.serving import serve

_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}


class _Reader:
    """What is to be sent on one connection."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._woken: asyncio.Future[None] | None = None

    def give(self, chunk: bytes) -> None:
        self._waiting.append(chunk)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def take(self) -> bytes:
        if not self._waiting:
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken
        taken, self._waiting = self._waiting, []
        return taken[0] if len(taken) == 1 else b"".join(taken)


class _App:
    def __init__(self, streams: int) -> None:
        self.readers: list[list[_Reader]] = [[] for _ in range(streams)]

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        reader = _Reader()
        await send(_START)
        await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
        self.readers[int(scope["path"].rpartition("-")[2])].append(reader)
        while True:
            await send({"type": "http.response.body", "body": await reader.take(), "more_body": True})


async def _write(app: _App, pace: Pace, listening: asyncio.Event) -> None:
    await listening.wait()
    await asyncio.to_thread(wait_for_go)
    sent = [0] * pace.streams
    began, done = time.monotonic(), 0
    while done < int(pace.rate * pace.seconds):
        for stream in due(pace, began, done):
            chunk = event(sent[stream])
            sent[stream] += 1
            done += 1
            for reader in app.readers[stream]:
                reader.give(chunk)
        await asyncio.sleep(TICK)
    say_outcome(sent=sent)


async def main() -> None:
    """Serve as the command line says, until killed."""
    port, *arguments = sys.argv[1:]
    pace = pace_of(arguments)
    app, listening = _App(pace.streams), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(app, int(port), listening.set))
        group.create_task(_write(app, pace, listening))


CONTESTANT: Final = Contestant(
    name="bare_asgi",
    title="SSE socket writing alone: uvicorn, bare ASGI",
    kind=Kind.FLOOR,
    server=lambda place, load: own_program("benchmarks.contestants.bare_asgi", place.port, *load.arguments()),
)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
