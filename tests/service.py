"""A real service process, and what tests do with it: start it, ask it, read its streams, stop it."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from streaming.sse import ServerSentEvent, ServerSentEventDecoder

ROOT: Final = Path(__file__).parents[1]
#: Bounds every wait of these tests, in seconds. Reached only by what hangs.
PATIENCE: Final = 45.0
#: Words per second of a demo model that writes as fast as it can.
FAST: Final = "0"
#: Words per second of a demo model that is in the middle of its answer for as long as any test lasts.
SLOW: Final = "5"
TRIP: Final = "Plan a 3-day trip to Tokyo"

#: Below the ports from which systems take their own: nothing gets between choosing one and listening.
_PORTS: Final = range(20_000, 32_000)
#: What starts a setting's name; a test's service gets none of the tester's.
_SETTINGS: Final = (
    *(
        "API_KEYS",
        "APPLICATIONINSIGHTS_",
        "AUDIT_",
        "AZURE_",
        "AzureFunctions",
        "AzureSignalR",
        "CONVERSATION_",
        "CORS_",
        "DATA_DIR",
        "DEMO_",
        "DURABLE_",
        "EMBEDDED_",
        "FUNCTIONS_",
        "INSPECT_",
    ),
    *(
        "HEALTH_",
        "HOST",
        "LOG_",
        "MAX_",
        "METRICS_",
        "OPENAI_",
        "OTEL_",
        "PORT",
        "REDIS_",
        "RUN_",
        "SIGNALR_",
        "STREAM_",
        "TRUSTED_",
    ),
)
#: In the names of keys that tests write by plain commands, as other programs do.
FOREIGN: Final = "foreign"
_READY: Final = re.compile(rb"Ready on (\S+) \(streams in [^\n]*?(?: on port (\d+))?\)\. ")


def _ports_of_this_process() -> Iterator[int]:
    """Ports that no other of the processes that run these tests hands out, each once.

    Between its choice and its use a port is nobody's: what is chosen at random, another may choose as well.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = _PORTS[number::workers]
    # Another run of the tests, at the same time, seldom begins at the same place.
    start = random.randrange(len(mine))
    return itertools.cycle([*mine[start:], *mine[:start]])


_port: Final = _ports_of_this_process()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    while True:
        port = next(_port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service: ours without its settings, and those that are given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return {**inherited, "HOST": "127.0.0.1", "DATA_DIR": str(data_dir), **settings}


@dataclass(slots=True)
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str
    #: Of the embedded Redis; 0 where there is none.
    redis_port: int
    log_path: Path

    @property
    def redis_url(self) -> str:
        """Its embedded Redis."""
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for raw sockets."""
        parsed = httpx.URL(self.url)
        return parsed.host, parsed.port or 0

    @property
    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(encoding="utf-8")

    @property
    def memory(self) -> int:
        """What it holds in memory, in bytes, as Linux has it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1_024

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status. Stopping it again does nothing."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


def start_service(data_dir: Path, *, program: str = "standalone", **settings: str) -> Service:
    """Start ``python -m standalone``, or a variant of it, and wait until it says that it is ready."""
    data_dir.mkdir(parents=True, exist_ok=True)
    log_path = data_dir.with_name(f"{data_dir.name}.log")
    given = {"PORT": str(free_port()), "DEMO_MODEL_WORDS_PER_SECOND": FAST, **settings}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", program],
            cwd=ROOT,
            env=environment(data_dir, given),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    said = _until_ready(process)
    ready = _READY.search(said)
    if ready is None:
        process.kill()
        process.wait(PATIENCE)
        raise AssertionError(f"not ready, said {said!r}, logged {log_path.read_text()!r}")
    return Service(process, ready[1].decode(), int(ready[2] or 0), log_path)


def _until_ready(process: subprocess.Popen[bytes]) -> bytes:
    """What the process prints up to its last line of readiness, its end, or the end of patience."""
    assert process.stdout is not None
    said, deadline = b"", time.monotonic() + PATIENCE
    while b"CONVERSATION_ID" not in said:
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(process.stdout.fileno(), 65_536) if readable else b""
        if not piece:
            break
        said += piece
    return said


@contextmanager
def running_service(data_dir: Path, *, program: str = "standalone", **settings: str) -> Iterator[Service]:
    """A service while inside; killed at the end, so that no test waits for its runs."""
    service = start_service(data_dir, program=program, **settings)
    immortal: list[str] = []
    try:
        yield service
        immortal = immortal_keys(service)
    finally:
        service.stop(signal.SIGKILL)
    assert not immortal, f"keys without a time to live: {immortal}"


def immortal_keys(service: Service) -> list[str]:
    """Keys without a TTL in the service's embedded Redis, but for those that tests write by themselves."""
    if service.redis_port == 0:
        return []
    try:
        with Redis.from_url(service.redis_url, decode_responses=True) as redis:
            keys = [str(key) for key in redis.scan_iter(count=1_000) if FOREIGN not in str(key)]
            return [key for key in keys if redis.ttl(key) == -1]
    except RedisConnectionError:
        # A test has stopped it.
        return []


def failed_start(data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a service that is expected to give up; what it said and its exit status."""
    return subprocess.run(
        [sys.executable, "-m", "standalone"],
        cwd=ROOT,
        env=environment(data_dir, {"PORT": str(free_port()), **settings}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def connect_http(service: Service) -> httpx.AsyncClient:
    """An HTTP client of the service, for many connections at once."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=20)
    return httpx.AsyncClient(base_url=service.url, timeout=PATIENCE, limits=limits, trust_env=False)


async def start_run(
    http: httpx.AsyncClient, message: str = TRIP, *, agent: str = "TravelPlanner", **more: Any
) -> dict[str, Any]:
    """Start a run without waiting for its answer; what the service says of it."""
    body = {"message": message, "wait_for_response": False, **more}
    response = await http.post(f"/api/agents/{agent}/run", json=body)
    assert response.status_code == 202, response.text
    return dict(response.json())


async def finished_run(http: httpx.AsyncClient, message: str = TRIP, **more: Any) -> dict[str, Any]:
    """Let a run finish; what the service says of it, its answer as ``response``."""
    body = {"message": message, "wait_for_response": True, **more}
    response = await http.post("/api/agents/TravelPlanner/run", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


@dataclass(slots=True)
class EventStream:
    """An open stream of server-sent events."""

    response: httpx.Response
    decoder: ServerSentEventDecoder = field(default_factory=ServerSentEventDecoder)
    #: Every byte so far.
    received: bytearray = field(default_factory=bytearray)
    _pieces: AsyncIterator[bytes] | None = None
    _decoded: list[ServerSentEvent] = field(default_factory=list)

    async def next(self) -> ServerSentEvent:
        """The next event, of a stream that is expected to have one."""
        event = await self._next()
        assert event is not None, "the stream ended"
        return event

    async def _next(self) -> ServerSentEvent | None:
        if self._pieces is None:
            self._pieces = self.response.aiter_raw()
        while not self._decoded:
            async with asyncio.timeout(PATIENCE):
                piece = await anext(self._pieces, None)
            if piece is None:
                return None
            self.received += piece
            self._decoded = self.decoder.feed(piece)
        return self._decoded.pop(0)

    async def up_to(self, name: str) -> list[ServerSentEvent]:
        """All events up to the next of this name."""
        events = [await self.next()]
        while events[-1].event != name:
            events.append(await self.next())
        return events

    async def rest(self) -> list[ServerSentEvent]:
        """All events up to the end of the response."""
        events = []
        while (event := await self._next()) is not None:
            events.append(event)
        return events


def stream_path(conversation_id: str) -> str:
    """The stream route."""
    return f"/api/agent/stream/{conversation_id}"


@asynccontextmanager
async def open_events(
    http: httpx.AsyncClient,
    conversation_id: str,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[EventStream]:
    """Open a stream as server-sent events and have its answer's head."""
    asked = {"accept": "text/event-stream", **(headers or {})}
    async with http.stream("GET", stream_path(conversation_id), params=params, headers=asked) as response:
        if response.status_code != 200:
            body = (await response.aread()).decode(errors="replace")
            raise AssertionError(f"{response.status_code}: {body}")
        yield EventStream(response)


async def read_events(
    http: httpx.AsyncClient,
    conversation_id: str,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> list[ServerSentEvent]:
    """A stream's events from where the client asked to the end of the response."""
    async with open_events(http, conversation_id, params, headers) as stream:
        return await stream.rest()


async def read_plain(
    http: httpx.AsyncClient, conversation_id: str, params: Mapping[str, str] | None = None
) -> str:
    """A stream as plain text, exactly as its bytes say."""
    path, headers = stream_path(conversation_id), {"accept": "text/plain"}
    response = await http.get(path, params=params, headers=headers)
    assert response.status_code == 200, response.text
    return response.content.decode()


def text_of(events: Sequence[ServerSentEvent]) -> str:
    """The text that a client shows."""
    return "".join(event.data for event in events if event.event == "message")


async def eventually(condition: Callable[[], Awaitable[bool]], description: str) -> None:
    """Wait for what can only be asked for, not waited on."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 - another process's state has no event here
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never came true: {description}") from None
