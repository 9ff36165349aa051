"""This project: the service as it starts from the README, and its own ways of writing.

    python -m benchmarks.contestants.ours agent|feed REDIS_URL STREAMS RATE SECONDS
    python -m benchmarks.contestants.ours fill REDIS_URL CHUNKS

``agent`` writes through ``RedisStreamCallback``, many runs on one event loop as a worker has them; that is
what the write cases measure. ``feed`` calls the append script with little around it: while readers are
measured, the writer must not be what is slow. ``fill`` writes one finished answer.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from agent_framework import AgentResponse, AgentResponseUpdate, Content, Message
from agent_framework_durabletask import AgentCallbackContext

from benchmarks.contestants import plain_redis
from benchmarks.contestants.contestant import Contestant, Kind, Load, Place, own_program
from benchmarks.loads.pacing import (
    TICK,
    Pace,
    drive,
    due,
    pace_of,
    say_outcome,
    stamped,
    stream_name,
    wait_for_go,
)
from benchmarks.programs import Command
from hosting.garbage import GarbageWatch
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import NewEntry
from streaming.loop_local import LoopLocal
from streaming.store.run_states import Appended, Attempt
from streaming.store.run_store import RunStore
from streaming.writing.leases import LeaseKeeper
from streaming.writing.run_control import RunControl, current_run

_MODULE: Final = "benchmarks.contestants.ours"
_TTL: Final = timedelta(minutes=10)
#: How long the pacing alone is measured, of the time that the whole takes.
_PACING_SHARE: Final = 0.25
#: Runs that are begun at the same time.
_BEGIN_AT_ONCE: Final = 200


class _Agent:
    """The runs of an agent, as the framework executes them: one task each, updates to the callback."""

    def __init__(self, redis_url: str, streams: int, stored: Callable[[list[NewEntry]], None] | None) -> None:
        self._handlers = LoopLocal(lambda: _handler(redis_url, stored))
        self._leases = LeaseKeeper(lambda: connect(redis_url), _TTL)
        self._callback = RedisStreamCallback(self._handlers.get, self._leases)
        self._content = [Content.from_text("") for _ in range(streams)]
        self._updates = [
            AgentResponseUpdate(contents=[content], role="assistant") for content in self._content
        ]
        self._contexts = [
            AgentCallbackContext("Bench", f"run-{number}", session_id=stream_name(number))
            for number in range(streams)
        ]
        self._said: list[list[str]] = [[] for _ in range(streams)]
        self._controls: list[RunControl | None] = [None] * streams

    async def begin(self) -> None:
        """Write the first chunk of each run, which begins it."""

        async def begin(stream: int) -> None:
            await self.write(stream, 0)
            self._controls[stream] = current_run.get()

        await asyncio.gather(*(begin(stream) for stream in range(len(self._contexts))))

    async def write(self, stream: int, number: int) -> None:
        """One update. The framework's own cost of making it is not what is measured."""
        text = stamped(number)
        self._said[stream].append(text)
        self._content[stream].text = text
        # The framework executes a run in one task, which the callback knows it by.
        current_run.set(self._controls[stream])
        await self._callback.on_streaming_response_update(self._updates[stream], self._contexts[stream])

    async def flush(self) -> None:
        """End all runs, each of which waits until all of it is in Redis."""
        await asyncio.gather(*(self._conclude(stream) for stream in range(len(self._contexts))))

    async def _conclude(self, stream: int) -> None:
        current_run.set(self._controls[stream])
        message = Message(role="assistant", contents=["".join(self._said[stream])])
        await self._callback.on_agent_response(AgentResponse(messages=[message]), self._contexts[stream])

    async def close(self) -> None:
        """Let all connections go."""
        await self._handlers.get().aclose()
        await asyncio.to_thread(self._leases.close)


def _handler(redis_url: str, stored: Callable[[list[NewEntry]], None] | None) -> RedisStreamResponseHandler:
    handler = RedisStreamResponseHandler(connect(redis_url), _TTL)
    if stored is not None:
        send_append = handler.runs.send_append

        def timed_append(
            attempt: Attempt,
            first: int,
            entries: list[NewEntry],
            on_outcome: Callable[[Appended | Exception], None],
        ) -> bool:
            def take(outcome: Appended | Exception) -> None:
                if isinstance(outcome, Appended):
                    stored(entries)
                on_outcome(outcome)

            return send_append(attempt, first, entries, take)

        # Whoever appends through the store is timed, from the chunk's own stamp to the reply of Redis.
        vars(handler.runs)["send_append"] = timed_append
    return handler


async def run_agent(redis_url: str, pace: Pace) -> dict[str, object]:
    """Write as an agent; paced, each chunk's time until it was in Redis is told too."""
    # What is measured is not the measuring: this is worked out afterwards.
    texts: list[str] = []
    times: list[int] = []

    def stored(entries: list[NewEntry]) -> None:
        texts.extend([entry.text for entry in entries])
        times.extend([time.monotonic_ns()] * len(entries))

    agent = _Agent(redis_url, pace.streams, stored if pace.rate else None)
    await agent.begin()
    await asyncio.to_thread(wait_for_go)
    # As the processes have it that execute agents.
    GarbageWatch(lambda: True).start()
    pacing = await _cpu_of_pacing(pace)
    texts.clear()
    times.clear()
    began_cpu, began = time.process_time(), time.monotonic()
    written = await drive(pace, agent.write)
    await agent.flush()
    took, cpu = time.monotonic() - began, time.process_time() - began_cpu
    await agent.close()
    chunks = sum(written.sent)
    acknowledged = [
        (at - int(text.partition(" ")[2][:-1])) / 1e6 for text, at in zip(texts, times, strict=True) if text
    ]
    if pace.rate and len(acknowledged) < chunks:
        raise RuntimeError(f"{len(acknowledged)} of {chunks} chunks were acknowledged.")
    return {"sent": written.sent, "took": took, "cpu": cpu, "pacing": pacing, "stored": acknowledged}


async def _cpu_of_pacing(pace: Pace) -> float:
    """What the loop takes for a chunk that is not written, in seconds."""

    async def nothing(_stream: int, number: int) -> None:
        stamped(number)

    began = time.process_time()
    written = await drive(Pace(pace.streams, pace.rate, pace.seconds * _PACING_SHARE), nothing)
    return (time.process_time() - began) / max(1, sum(written.sent))


class _Run:
    """One run that is fed: at most one append is under way, what comes meanwhile goes into the next."""

    def __init__(self, store: RunStore, attempt: Attempt, control: RunControl) -> None:
        self._store = store
        self._attempt = attempt
        self._control = control
        self._waiting: list[NewEntry] = []
        self._under_way: list[NewEntry] = []
        self._appended = 0
        self._failure: Exception | None = None
        self._all_there = asyncio.Event()
        self._all_there.set()
        self.sent = 0

    def feed(self) -> None:
        """Append a chunk that is made now."""
        self._waiting.append(NewEntry(time.time_ns() // 1_000_000, stamped(self.sent)))
        self.sent += 1
        if not self._under_way:
            self._all_there.clear()
            self._append()

    def _append(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._store.send_append(self._attempt, self._appended, self._under_way, self._take)

    def _take(self, outcome: Appended | Exception) -> None:
        if isinstance(outcome, Exception):
            self._failure = outcome
            self._all_there.set()
            return
        if outcome.lease_renewed:
            self._control.lease_renewed_at = time.monotonic()
        self._appended += len(self._under_way)
        self._under_way = []
        if self._waiting:
            self._append()
        else:
            self._all_there.set()

    async def flush(self) -> None:
        """Wait until all of it is in Redis."""
        await self._all_there.wait()
        if self._failure is not None:
            raise self._failure


async def feed(redis_url: str, pace: Pace) -> dict[str, object]:
    """Write at a rate."""
    leases = LeaseKeeper(lambda: connect(redis_url), _TTL)
    async with RedisStreamResponseHandler(connect(redis_url), _TTL) as handler:
        turns = asyncio.Semaphore(_BEGIN_AT_ONCE)

        async def begin(number: int) -> _Run:
            async with turns:
                attempt = await handler.begin_run(
                    stream_name(number), "run", agent="Bench", owner=f"owner-{number}", patient=True
                )
            control = RunControl(attempt.conversation_id, attempt.run)
            leases.keep(
                control.conversation_id, control.run, agent="Bench", attempt=attempt.number, control=control
            )
            return _Run(handler.runs, attempt, control)

        runs = await asyncio.gather(*(begin(number) for number in range(pace.streams)))
        await asyncio.to_thread(wait_for_go)
        # The load is not to stall for its own garbage.
        gc.disable()
        began_cpu, began, done = time.process_time(), time.monotonic(), 0
        while done < int(pace.seconds * pace.rate):
            for stream in due(pace, began, done):
                runs[stream].feed()
                done += 1
            await asyncio.sleep(TICK)
        await asyncio.gather(*(run.flush() for run in runs))
        took, cpu = time.monotonic() - began, time.process_time() - began_cpu
        await asyncio.to_thread(leases.close)
        return {"sent": [run.sent for run in runs], "took": took, "cpu": cpu}


async def feed_chunks(redis_url: str, pace: Pace) -> dict[str, object]:
    """Write at a rate, by ``write_chunk``: to streams of no registered run."""
    async with RedisStreamResponseHandler(connect(redis_url), _TTL) as handler:

        async def write(stream: int, number: int) -> None:
            await handler.write_chunk(stream_name(stream), stamped(number), number)

        # There is to be something to follow.
        for stream in range(pace.streams):
            await handler.write_chunk(stream_name(stream), "", 0)
        await asyncio.to_thread(wait_for_go)
        gc.disable()
        began_cpu = time.process_time()
        written = await drive(pace, write)
        return {"sent": written.sent, "took": written.took, "cpu": time.process_time() - began_cpu}


async def fill(redis_url: str, chunks: int) -> dict[str, object]:
    """Write one finished answer."""
    agent = _Agent(redis_url, 1, None)
    await agent.begin()
    for number in range(1, chunks):
        await agent.write(0, number)
    await agent.flush()
    await agent.close()
    return {"sent": [chunks]}


def service(place: Place, _load: Load) -> Command:
    """The service as it starts from the README, with that Redis."""
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(place.port),
        "REDIS_CONNECTION_STRING": place.redis_url,
        "DATA_DIR": str(place.folder),
        "LOG_LEVEL": "WARNING",
    }
    return Command([sys.executable, "-m", "standalone"], settings)


def two(place: Place, load: Load) -> Command:
    """The same as two processes."""
    one = service(place, load)
    return replace(one, environment={**one.environment, "WORKERS": "2"})


CONTESTANT: Final = Contestant(
    name="ours",
    title="this project",
    kind=Kind.OURS,
    server=service,
    path="/api/agent/stream/{stream}?cursor=0",
    writer=lambda place, load: own_program(_MODULE, "agent", place.redis_url, *load.arguments()),
    feeder=lambda place, load: own_program(_MODULE, "feed", place.redis_url, *load.arguments()),
    filler=lambda place, chunks: own_program(_MODULE, "fill", place.redis_url, chunks),
)


#: Streams as programs write them that know no runs.
UNREGISTERED: Final = replace(
    CONTESTANT,
    name="write_chunk",
    title="this project, by `write_chunk`",
    feeder=lambda place, load: own_program(_MODULE, "feed_chunks", place.redis_url, *load.arguments()),
)

#: As any program writes them, without a word to anybody.
FOREIGN: Final = replace(
    CONTESTANT, name="xadd", title="this project, by plain `XADD`", feeder=plain_redis.CONTESTANT.writer
)


def main() -> None:
    """Do what the command line says."""
    what, redis_url, *arguments = sys.argv[1:]
    if what == "fill":
        outcome = asyncio.run(fill(redis_url, int(arguments[0])))
    else:
        write = {"agent": run_agent, "feed": feed, "feed_chunks": feed_chunks}[what]
        outcome = asyncio.run(write(redis_url, pace_of(arguments)))
    say_outcome(**outcome)


if __name__ == "__main__":
    main()
