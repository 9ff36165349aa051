"""Whole runs of the demo agent: how soon they start, what the service adds, and that nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from benchmarks.cases.case import Case, Figures, Variant, milliseconds
from benchmarks.contestants import ours
from benchmarks.contestants.contestant import Kind, Load
from benchmarks.plan import Plan
from benchmarks.plant import Plant
from benchmarks.programs import Command

#: The demo model's pace, and so what it takes itself until its first word, in milliseconds.
_WORDS_PER_SECOND: Final = 25
_MODEL_MS: Final = 1_000 / _WORDS_PER_SECOND
#: An agent that does not wait, and a question for which the model calls no tool.
_RUN: Final = "/api/agents/TravelPlanner/run"
_QUESTION: Final = b"Tell me a joke"
#: Of one request, its stream to the end included, in seconds.
_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Run:
    """One run as a client saw it. Times in milliseconds from the POST."""

    start: float
    first_chunk: float
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer. Times by the monotonic clock."""

    first_piece: float
    body: bytes


def cases(plan: Plan) -> list[Case]:
    """The cases of whole runs."""

    def measured(at_once: int, times: int, plant: Plant) -> Figures:
        return measure(plant, at_once, times)

    at_once, one_by_one = plan.runs_at_once, plan.runs_one_by_one
    return [
        Case(
            "runs",
            f"whole runs on the embedded hub; the model says {_WORDS_PER_SECOND} words/s",
            {
                "one_by_one": Variant(
                    f"one after the other, {one_by_one} in all",
                    Kind.OURS,
                    lambda plant: measured(1, one_by_one, plant),
                ),
                "at_once": Variant(
                    f"{at_once} at once", Kind.OURS, lambda plant: measured(at_once, 1, plant)
                ),
            },
        )
    ]


def measure(plant: Plant, at_once: int, times: int) -> Figures:
    """Start so many runs at once, so many times, and read each to its end."""
    with ExitStack() as stack:
        place, _ = stack.enter_context(plant.place())
        command = ours.service(place, Load(streams=1))
        pace = {"DEMO_MODEL_WORDS_PER_SECOND": str(_WORDS_PER_SECOND)}
        command = Command(command.argv, {**command.environment, **pace})
        service = stack.enter_context(plant.program(command, cores=plant.cores.measured))
        service.wait_for("ready")
        cpu_before, began = service.cpu(), time.monotonic()
        runs = asyncio.run(_runs(place.port, at_once, times))
        load = (service.cpu() - cpu_before) / (time.monotonic() - began)
    added = [run.first_chunk - _MODEL_MS for run in runs]
    return (
        milliseconds([run.start for run in runs], "start_p50_ms", "start_p99_ms")
        | milliseconds(added, "added_p50_ms", "added_p99_ms")
        | {"lost": sum(not run.is_whole for run in runs), "measured_load": 100 * load}
    )


async def _runs(port: int, at_once: int, times: int) -> list[_Run]:
    # The first request imports and connects what later ones need.
    await _run(port)
    runs = []
    for _ in range(times):
        runs += await asyncio.gather(*(_run(port) for _ in range(at_once)))
    return runs


async def _run(port: int) -> _Run:
    posted, posted_at = time.monotonic(), time.time()
    answer = await _request(port, "POST", _RUN, "Content-Type: text/plain", body=_QUESTION)
    conversation = json.loads(answer.body)["conversation_id"]
    stream = await _request(port, "GET", f"/api/agent/stream/{conversation}", "Accept: text/plain")
    status: dict[str, Any] = json.loads((await _request(port, "GET", f"{_RUN}/{conversation}")).body)
    started = datetime.fromisoformat(status["started_at"]).timestamp()
    return _Run(
        start=(started - posted_at) * 1e3,
        first_chunk=(stream.first_piece - posted) * 1e3,
        is_whole=status["status"] == "Completed" and stream.body.decode() == status["response"],
    )


async def _request(port: int, method: str, path: str, *headers: str, body: bytes = b"") -> _Answer:
    """One request over a connection of its own."""
    async with asyncio.timeout(_TIMEOUT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"{method} {path} HTTP/1.1", "Host: bench", "Connection: close"]
        writer.write("\r\n".join([*lines, *headers, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        first = await reader.read(1)
        first_piece = time.monotonic()
        rest = first + await reader.read()
        writer.close()
    return _Answer(first_piece, _unchunked(rest) if b"transfer-encoding: chunked" in head else rest)


def _unchunked(body: bytes) -> bytes:
    """A body without the lengths between its pieces (RFC 9112, section 7.1)."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        length = int(body[at:end], 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + length])
        at = end + 2 + length + 2
