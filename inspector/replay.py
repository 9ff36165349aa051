"""Plays a recorded conversation into a new one, at its own pace, through the service's own writer.

Each recorded attempt is an attempt here too, with its own writer and lease; so readers, the status route and
every page take it for what it looks like: a run in progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from inspector.recording import Recording
from inspector.trouble import explain
from streaming.cancellation import raise_if_cancelled
from streaming.entries import RESET, NewEntry, RunStatus, StreamChunk
from streaming.errors import StreamUnavailable
from streaming.identifiers import new_id
from streaming.store.run_store import RunStore
from streaming.writing.leases import LeaseKeeper
from streaming.writing.run_control import RunControl, StopReason
from streaming.writing.writer import RunWriter

#: Between two runs somebody read and thought; a demo's audience need not.
LONGEST_PAUSE_BETWEEN_RUNS: Final = timedelta(seconds=2)
#: How long the end of a replay that is broken off may take to write.
HURRY: Final = timedelta(seconds=5)
#: Whose run it is where the recording does not tell.
UNKNOWN_AGENT: Final = "Replay"
CUT_MESSAGE: Final = "The recording ends here, before the run's end."
RETRIED_REASON: Final = "the run was interrupted and starts again"


@dataclass(slots=True)
class _Playing:
    """A run that is being played."""

    run: str
    agent: str
    control: RunControl
    writer: RunWriter
    #: The recorded attempt that is played.
    attempt: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of it."""

    runs: int
    entries: int
    #: Somebody stopped it.
    was_stopped: bool


class Replayer:
    """Plays one recording. Belongs to the event loop of its store."""

    def __init__(
        self,
        store: RunStore,
        connect: Callable[[], Redis],
        stream_ttl: timedelta,
        *,
        speed: float,
        agent: str | None = None,
    ) -> None:
        """Play into ``store``.

        Args:
            store: Where to.
            connect: A client of the same Redis for the lease keeper's own thread.
            stream_ttl: How long the new conversation is kept.
            speed: So many times as fast as it was; 0: without pauses.
            agent: The agent's name; ``None``: the recorded one.
        """
        self._store, self._speed, self._agent = store, speed, agent
        self._leases = LeaseKeeper(connect, stream_ttl)
        self._playing: dict[str | None, _Playing] = {}
        self._due = 0.0
        self._last_at: int | None = None
        self._runs = self._entries = 0

    async def play(self, recording: Recording, into: str, *, run: str | None = None) -> Replayed:
        """Play all of its runs, or one.

        Raises:
            DamagedRecording: the file is not all there.
            StreamUnavailable: Redis does not answer.
            WriterRefused: Redis has lost the run, or another has taken it over.
        """
        agents = {record.run: record.fields.get("agent", "") for record in recording.stored.runs}
        self._due = asyncio.get_running_loop().time()
        was_stopped = False
        try:
            async with contextlib.aclosing(recording.entries()) as entries:
                async for entry in entries:
                    if run is not None and entry.run != run:
                        continue
                    await self._wait_for(entry)
                    if await self._stopped():
                        was_stopped = True
                        break
                    await self._play(entry, into, agents.get(entry.run or "", ""))
            await self._end_all(RunStatus.INTERRUPTED)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, StreamUnavailable):
                await asyncio.wait_for(self._end_all(RunStatus.CANCELLED), HURRY.total_seconds())
            raise
        except RedisError as error:
            raise explain(error) from error
        finally:
            await asyncio.to_thread(self._leases.close)
        return Replayed(self._runs, self._entries, was_stopped)

    async def _wait_for(self, entry: StreamChunk) -> None:
        """Wait until an entry is due: as long after the one before as it was."""
        at = entry.timestamp if entry.timestamp is not None else entry.id.milliseconds
        before, self._last_at = self._last_at, at
        if before is None or self._speed == 0:
            return
        pause = max(0.0, (at - before) / 1000 / self._speed)
        if entry.run not in self._playing:
            pause = min(pause, LONGEST_PAUSE_BETWEEN_RUNS.total_seconds())
        self._due += pause
        left = self._due - asyncio.get_running_loop().time()
        if left > 0:
            await self._sleep(left)

    async def _sleep(self, seconds: float) -> None:
        """Wait; a stop of the run that is played ends the wait."""
        with contextlib.ExitStack() as stack:
            for playing in self._playing.values():
                stack.enter_context(playing.control.interruptible())
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                controls = [playing.control for playing in self._playing.values()]
                if not any(control.stop_reason for control in controls):
                    raise
                for control in controls:
                    control.take_back_cancels()
                # By somebody else, too.
                raise_if_cancelled()

    async def _stopped(self) -> bool:
        """Whether somebody has stopped a run that is played; then it is ended."""
        reasons = {playing.control.stop_reason for playing in self._playing.values()}
        if StopReason.SUPERSEDED in reasons:
            for playing in self._playing.values():
                self._leases.release(playing.control.conversation_id, playing.run, playing.control)
            self._playing.clear()
            return True
        if StopReason.CANCELLED in reasons:
            await self._end_all(RunStatus.CANCELLED)
            return True
        return False

    async def _play(self, entry: StreamChunk, into: str, agent: str) -> None:
        playing = self._playing.get(entry.run)
        is_taken_over = playing is not None and entry.attempt > playing.attempt
        if playing is None:
            name = self._agent or agent or UNKNOWN_AGENT
            control = RunControl(into, new_id())
            await self._store.register(into, control.run, name)
            writer, _ = await self._begin(control, name, RETRIED_REASON)
            playing = _Playing(control.run, name, control, writer, entry.attempt)
            self._playing[entry.run] = playing
            self._runs += 1
        elif is_taken_over:
            await playing.writer.flush()
            data = entry.data if isinstance(entry.data, dict) else {}
            reason = str(data.get("reason") or RETRIED_REASON)
            playing.writer, resets = await self._begin(playing.control, playing.agent, reason)
            playing.attempt = entry.attempt
            if resets and entry.type == RESET:
                # Beginning has written it.
                self._entries += 1
                return
        await self._put(playing, _new(entry))
        if entry.is_terminal:
            del self._playing[entry.run]

    async def _begin(self, control: RunControl, agent: str, reason: str) -> tuple[RunWriter, bool]:
        """Begin an attempt; whether readers are told to discard what they have."""
        owner = new_id()
        control.owners.add(owner)
        attempt = await self._store.begin(control.conversation_id, control.run, owner=owner, reason=reason)
        self._leases.keep(
            control.conversation_id, control.run, agent=agent, attempt=attempt.number, control=control
        )
        return RunWriter(self._store, attempt, control), attempt.next_sequence > 0

    async def _put(self, playing: _Playing, entry: NewEntry) -> None:
        await playing.writer.put(entry)
        self._entries += 1
        if entry.status is not None:
            await playing.writer.flush()
            self._leases.release(playing.control.conversation_id, playing.run, playing.control)

    async def _end_all(self, status: RunStatus) -> None:
        """End the runs whose end is not recorded, or was not reached."""
        while self._playing:
            _, playing = self._playing.popitem()
            error = None if status is RunStatus.CANCELLED else CUT_MESSAGE
            await self._put(playing, NewEntry(_now(), status=status, error=error))


def _new(entry: StreamChunk) -> NewEntry:
    """A recorded entry as a new one: fields that this service does not know are left out."""
    if entry.is_terminal:
        return NewEntry(_now(), status=entry.status, error=entry.error, code=entry.code)
    return NewEntry(_now(), text=entry.text or "", type=entry.type, data=entry.data)


def _now() -> int:
    return time.time_ns() // 1_000_000
