"""What bridges of vendors' event streams share: a vendor's events → one run's entries, and back.

It knows the stream's writer and reader; no vendor. ``RunRecording`` writes a run, ``Transcript`` keeps its
text right, and ``entries_in_context`` reads one so that the vendor's events can be made again.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.cancellation import raise_if_cancelled
from streaming.entries import RESET, NewEntry, RunStatus, StreamChunk
from streaming.errors import RunLost, SequenceGap, StreamingError, StreamUnavailable, WriterRefused
from streaming.identifiers import check_conversation_id, check_run_id, new_id
from streaming.store.run_states import Forgotten
from streaming.telemetry import TerminalWritten
from streaming.text_joiner import TextJoiner, storable
from streaming.writing.leases import LeaseKeeper
from streaming.writing.run_control import RunControl, StopReason
from streaming.writing.writer import PATIENCE, RunWriter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: A string in a typed entry is cut at this many characters (docs/protocol.md, 2.3).
STRING_LIMIT: Final = 65_536
#: A corrected text is appended in pieces of this many characters.
PIECE: Final = 65_536
#: How often in a row a stream that was lost is written again. A Redis that loses it as often is of no use.
REWRITES: Final = 10
#: How long the end of a run that is left in a hurry (an error, a cancel) may take to write. If Redis takes
#: longer, the run's lease lapses, and whoever reads it ends it as interrupted.
HURRY: Final = timedelta(seconds=5)


class RunStopped(Exception):
    """Somebody asked the run to stop: end it, keep what it gave."""


class RunRecording:
    """Writes one run into its conversation's stream: in order, each entry once, and one terminal.

    Belongs to the loop it begins on. An error of Redis is raised to whoever records, never swallowed.
    """

    def __init__(
        self,
        handler: RedisStreamResponseHandler,
        conversation_id: str,
        *,
        leases: LeaseKeeper,
        agent: str,
        run: str | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        """Describe the run; nothing is written before ``begin``.

        Args:
            handler: The event loop's own.
            conversation_id: Where to; 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
            leases: Keep the run alive to its readers while it is silent.
            agent: The agent's name, which the run's status tells.
            run: The run's id; a new one if it is left out.
            patience: How long Redis may stay away before recording fails.

        Raises:
            InvalidInput: an id can't be used.
        """
        self.conversation_id: Final = check_conversation_id(conversation_id)
        self.run: Final = new_id() if run is None else check_run_id(run)
        #: How the run ended; ``None`` while it goes on.
        self.status: RunStatus | None = None
        self._handler, self._leases = handler, leases
        self._agent, self._patience = agent, patience
        self._control: RunControl | None = None
        self._writer: RunWriter | None = None
        self._failure: Exception | None = None
        self._put: list[NewEntry] = []
        self._abandoned: weakref.finalize[..., Any] | None = None

    def __str__(self) -> str:
        return f"conversation={self.conversation_id} run={self.run}"

    async def begin(self) -> None:
        """Make the run known, so that its readers may come. Again: nothing happens.

        Raises:
            RunEnded: the run has its terminal; it must not be written again.
            StreamUnavailable: Redis does not answer.
        """
        if self._control is not None:
            return
        control = RunControl(self.conversation_id, self.run)
        self._writer = await self._new_writer(control)
        self._control = control
        # A recording that is dropped without its end lets its lease go: readers then end the run.
        self._abandoned = weakref.finalize(
            self, self._leases.release, self.conversation_id, self.run, control
        )
        self._abandoned.atexit = False
        _log.info("recording started: %s agent=%s", self, self._agent)

    async def put(self, entries: Iterable[NewEntry]) -> None:
        """Append entries; one with a status is the terminal, and is waited for.

        Raises:
            WriterRefused: the stream takes nothing more of this run.
            StreamUnavailable: Redis stayed away too long.
        """
        await self.begin()
        if self._failure is not None:
            raise self._failure
        for entry in entries:
            if self.status is not None:
                return
            try:
                await self._put_one(entry)
            except Exception as error:
                self._failure = error
                _log.error("recording failed: %s error=%s", self, type(error).__name__)
                self._release()
                raise

    async def end(self, terminal: NewEntry, *, hurry: bool = False) -> None:
        """End the run, unless it has ended or its stream has failed.

        Raises:
            WriterRefused: the stream takes nothing more of this run.
            StreamUnavailable: Redis stayed away too long; with ``hurry`` this is only logged.
        """
        if self.status is not None or self._failure is not None:
            return
        if not hurry:
            await self.put([terminal])
            return
        try:
            async with asyncio.timeout(HURRY.total_seconds()):
                await self.put([terminal])
        except (StreamingError, TimeoutError) as error:
            _log.warning("run left without its end: %s error=%s", self, type(error).__name__)
            self._release()

    def raise_if_stopped(self) -> None:
        """Look whether somebody asked the run to stop.

        Raises:
            RunStopped: they did.
        """
        if self._control is not None and self._control.stop_reason is StopReason.CANCELLED:
            raise RunStopped

    async def interruptible(self, step: Awaitable[_T]) -> _T:
        """Wait for a step of the vendor's, until somebody asks the run to stop.

        Raises:
            RunStopped: they did.
            WriterRefused: the run has ended elsewhere, or another execution has it.
        """
        await self.begin()
        control = self._control
        assert control is not None  # noqa: S101 - begin has set it
        try:
            with control.interruptible():
                return await step
        except asyncio.CancelledError:
            if control.stop_reason is None:
                raise
            control.take_back_cancels()
            # By somebody else, too.
            raise_if_cancelled()
            self.raise_if_stopped()
            raise WriterRefused from None

    def _release(self) -> None:
        if self._abandoned is not None:
            self._abandoned()

    async def _new_writer(self, control: RunControl, forgotten: Forgotten | None = None) -> RunWriter:
        owner = new_id()
        control.owners.add(owner)
        attempt = await self._handler.begin_run(
            self.conversation_id,
            self.run,
            agent=self._agent,
            owner=owner,
            patient=True,
            forgotten=forgotten,
        )
        if attempt.cancel_requested:
            control.stop(StopReason.CANCELLED)
        self._leases.keep(
            self.conversation_id, self.run, agent=self._agent, attempt=attempt.number, control=control
        )
        return RunWriter(self._handler.runs, attempt, control, patience=self._patience)

    async def _put_one(self, entry: NewEntry) -> None:
        assert self._writer is not None  # noqa: S101 - begin has set it
        assert self._control is not None  # noqa: S101 - begin has set it
        self._put.append(entry)
        lost: WriterRefused
        try:
            await self._hand_over(self._writer, entry)
            return
        except (RunLost, SequenceGap) as refused:
            lost = refused
        for _ in range(REWRITES):
            # The store forgot what it had acknowledged (flushed, or a failover): nothing is lost here yet.
            _log.warning("stream is written again, %s: %s", lost.code, self)
            try:
                self._writer = await self._new_writer(self._control, self._writer.forgotten)
                for put in self._put:
                    await self._hand_over(self._writer, put)
                return
            except (RunLost, SequenceGap) as refused:
                lost = refused
        raise StreamUnavailable

    async def _hand_over(self, writer: RunWriter, entry: NewEntry) -> None:
        await writer.put(entry)
        if entry.status is not None:
            await writer.flush()
            self.status = entry.status
            self._release()
            ended = TerminalWritten(self._agent, entry.status.value, entry.code or "")
            self._handler.runs.telemetry.terminal_written(ended)
            _log.info("recording ended: %s status=%s entries=%d", self, entry.status.value, len(self._put))


class Transcript:
    """The text of a run so far, as entries."""

    def __init__(self) -> None:
        self._joiner = TextJoiner()
        self._streamed: list[str] = []

    def text(self, fragment: str) -> list[NewEntry]:
        """A fragment as an entry; none while it can't stand alone."""
        return self._entries(self._joiner.feed(fragment))

    def held(self) -> list[NewEntry]:
        """What was held back; to be asked for before whatever is not text."""
        return self._entries(self._joiner.flush())

    def correct(self, final: str) -> list[NewEntry]:
        """What makes the text so far the ``final`` one: what is missing; or a reset, and all of it."""
        final = storable(final)
        streamed = "".join(self._streamed)
        if final == streamed:
            return []
        entries = []
        if not final.startswith(streamed):
            entries.append(event_entry(RESET, {"reason": "the final answer differs from what was streamed"}))
            self._streamed.clear()
            streamed = ""
        missing = final[len(streamed) :]
        for start in range(0, len(missing), PIECE):
            entries += self._entries(missing[start : start + PIECE])
        return entries

    def _entries(self, text: str) -> list[NewEntry]:
        if not text:
            return []
        self._streamed.append(text)
        return [NewEntry(timestamp=_now(), text=text)]


def event_entry(kind: str, data: Any) -> NewEntry:
    """A typed entry, its strings bounded."""
    return NewEntry(timestamp=_now(), type=kind, data=_bounded(data))


def terminal_entry(status: RunStatus, error: str | None = None, code: str | None = None) -> NewEntry:
    """The entry that ends a run; ``error`` and ``code`` where it failed or was interrupted."""
    return NewEntry(timestamp=_now(), status=status, error=error, code=code)


def connection_lost() -> NewEntry:
    """The terminal of a run whose end never came from the vendor's service."""
    return terminal_entry(
        RunStatus.INTERRUPTED, "The connection to the agent's service was lost.", "connection_lost"
    )


def failure_of(error: BaseException | None) -> NewEntry:
    """The terminal of a run that its own program has left, with or without an error."""
    if error is None or isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)):
        return terminal_entry(RunStatus.INTERRUPTED, "The program that ran the agent stopped.", "interrupted")
    return terminal_entry(RunStatus.FAILED, "The agent failed.", "agent_failed")


def _bounded(value: Any) -> Any:
    match value:
        case str():
            text = storable(value)
            return text if len(text) <= STRING_LIMIT else text[:STRING_LIMIT] + "…"
        case dict():
            return {storable(str(name)): _bounded(held) for name, held in value.items()}
        case list() | tuple():
            return [_bounded(held) for held in value]
    return value


def _now() -> int:
    return time.time_ns() // 1_000_000


async def entries_in_context(
    handler: RedisStreamResponseHandler,
    conversation_id: str,
    cursor: str | None,
    observe: Callable[[StreamChunk], object],
) -> AsyncGenerator[StreamChunk, None]:
    """Read a stream, typed entries included; a read from the middle of a run first sees what came before.

    Args:
        handler: The event loop's own.
        conversation_id: The conversation.
        cursor: As ``read_stream`` takes it.
        observe: Given each entry of the run that lies before the first one that is read, in order.

    Yields:
        What ``read_stream`` gives.
    """
    is_first = True
    async with _reading(handler.read_stream(conversation_id, cursor, events=True)) as chunks:
        async for chunk in chunks:
            if is_first and chunk.is_entry:
                is_first = False
                if chunk.run is not None and chunk.sequence:
                    await _observe_before(handler, conversation_id, chunk, observe)
            yield chunk


async def _observe_before(
    handler: RedisStreamResponseHandler,
    conversation_id: str,
    first: StreamChunk,
    observe: Callable[[StreamChunk], object],
) -> None:
    async with _reading(handler.read_stream(conversation_id, run=first.run, events=True)) as chunks:
        async for chunk in chunks:
            if chunk.id >= first.id:
                return
            observe(chunk)


def _reading(chunks: AsyncIterator[StreamChunk]) -> aclosing[AsyncGenerator[StreamChunk, None]]:
    """A read that is closed at once when it is left."""
    return aclosing(cast("AsyncGenerator[StreamChunk, None]", chunks))
