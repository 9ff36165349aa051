"""What the writers of all contestants have in common: STREAMS RATE SECONDS, the last of their arguments.

Standard library only, since peers run it in their own environments.

A chunk's text is ``@<number> <time>;``: its number in its stream from 0, and when it was made by this
machine's monotonic clock in nanoseconds, which is the same in all processes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

#: How often it is looked which chunks are due, in seconds.
TICK: Final = 0.001
#: How much later than it was due the last chunk may be written, in seconds.
LATE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """What is to be written."""

    streams: int
    #: Chunks a second over all streams; 0: as fast as it can.
    rate: float
    seconds: float


@dataclass(slots=True)
class Written:
    """What was."""

    #: Chunks by stream.
    sent: list[int]
    #: Since ``go``, in seconds.
    took: float = 0.0


def pace_of(arguments: list[str]) -> Pace:
    """Read the three arguments."""
    streams, rate, seconds = arguments
    return Pace(int(streams), float(rate), float(seconds))


def stream_name(number: int) -> str:
    """What the contestants call their streams."""
    return f"bench-{number}"


def stamped(number: int) -> str:
    """The text of a chunk that is made now."""
    return f"@{number} {time.monotonic_ns()};"


def say(line: str) -> None:
    """Tell the bench."""
    print(line, flush=True)


def wait_for_go() -> None:
    """Say that all is ready, and wait until the bench is. What is there by now is left to the collector."""
    gc.collect()
    gc.freeze()
    say("ready")
    sys.stdin.readline()


def say_outcome(**outcome: object) -> None:
    """Tell the bench what came of it."""
    say(json.dumps(outcome))


def due(pace: Pace, began: float, done: int) -> Iterator[int]:
    """The chunks that are due and not done yet, as stream numbers: chunk after chunk, stream after stream."""
    until = min(pace.seconds, time.monotonic() - began)
    for chunk in range(done, int(until * pace.rate)):
        yield chunk % pace.streams


async def drive(
    pace: Pace, write: Callable[[int, int], Awaitable[None]], *, lanes: int | None = None
) -> Written:
    """Write; ``write(stream, number)`` writes one chunk.

    A lane writes one chunk after the other. Each stream has its own, or all share so many. As fast as it can
    means that each lane hands over a chunk whenever it is its turn, as an agent does whose model is fast.
    """
    written = Written([0] * pace.streams)
    lanes = min(lanes or pace.streams, pace.streams)
    began = await (_paced if pace.rate else _fast)(pace, write, lanes, written)
    written.took = time.monotonic() - began
    return written


async def _fast(
    pace: Pace, write: Callable[[int, int], Awaitable[None]], lanes: int, written: Written
) -> float:
    began = time.monotonic()
    until = began + pace.seconds

    async def lane(first: int) -> None:
        streams = range(first, pace.streams, lanes)
        while True:
            for stream in streams:
                if time.monotonic() >= until:
                    return
                await write(stream, written.sent[stream])
                written.sent[stream] += 1
                # A model's updates come from a network.
                await asyncio.sleep(0)

    await asyncio.gather(*(lane(first) for first in range(lanes)))
    return began


async def _paced(
    pace: Pace, write: Callable[[int, int], Awaitable[None]], lanes: int, written: Written
) -> float:
    waiting: list[asyncio.Queue[int | None]] = [asyncio.Queue() for _ in range(lanes)]

    async def lane(queue: asyncio.Queue[int | None]) -> None:
        while (stream := await queue.get()) is not None:
            if time.monotonic() - began > pace.seconds + LATE:
                # Behind: what was not written in time was not written.
                continue
            await write(stream, written.sent[stream])
            written.sent[stream] += 1

    tasks = [asyncio.create_task(lane(queue)) for queue in waiting]
    # Ten thousand take a quarter of a second to start, in which nothing is due yet.
    await asyncio.sleep(0)
    began = time.monotonic()
    done, all_chunks = 0, int(pace.seconds * pace.rate)
    while done < all_chunks:
        for stream in due(pace, began, done):
            waiting[stream % lanes].put_nowait(stream)
            done += 1
        await asyncio.sleep(TICK)
    for queue in waiting:
        queue.put_nowait(None)
    await asyncio.gather(*tasks)
    return began
