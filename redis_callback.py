"""The agent's updates → ordered stream entries and exactly one terminal.

``RedisStreamCallback`` is given to the framework, which calls it on the agents' event loop. It knows the
handler that writes the stream, and the framework's types; no host, no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

from agent_framework import AgentResponse, AgentResponseUpdate, Content
from agent_framework_durabletask import AgentCallbackContext, AgentResponseCallbackProtocol

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import REASONING, RESET, TOOL_CALL, TOOL_RESULT, USAGE, NewEntry, RunStatus
from streaming.errors import RunEnded, RunLost, SequenceGap, StreamUnavailable, WriterRefused
from streaming.identifiers import new_id
from streaming.store.run_states import Forgotten
from streaming.text_joiner import TextJoiner, storable
from streaming.writing.execution import ABANDONED, STREAM_LOST, SUPERSEDED, RunExecution
from streaming.writing.leases import LeaseKeeper
from streaming.writing.run_control import RunControl, StopReason, current_run
from streaming.writing.writer import PATIENCE, RunWriter

_log = logging.getLogger(__name__)

#: Error code by which the wrapped agent says that it stopped because it was asked to.
CANCELLED_CODE: Final = "cancelled"
#: A typed entry's JSON is cut at this many characters: tools may return megabytes, and every reader that
#: asked for events would get them.
EVENT_DATA_LIMIT: Final = 65_536
#: A corrected answer is appended in pieces of this many characters.
CORRECTION_PIECE: Final = 65_536
#: How often in a row a stream that was lost is written again. A Redis that loses it as often is of no use.
REWRITES: Final = 10


class RedisStreamCallback(AgentResponseCallbackProtocol):
    """Streams every run of the agents it is given to.

    Give it to ``AgentFunctionApp(default_callback=…)`` or ``DurableAIAgentWorker(…, callback=…)``, and wrap
    the agents in ``hosting.streamable_agent.StreamableAgent``: only then does it hear of a failure.
    """

    def __init__(
        self,
        handler: Callable[[], RedisStreamResponseHandler],
        leases: LeaseKeeper | None = None,
        *,
        patience: timedelta = PATIENCE,
    ) -> None:
        """Stream through ``handler()``, which gives the running event loop's own handler.

        Args:
            handler: Called on the agents' loop, once for each run.
            leases: Keeps the leases of runs in progress. Without it a silent run counts as dead after
                ``streaming.store.run_store.LEASE``.
            patience: How long Redis may stay away before a run goes on without its stream.
        """
        self._handler = handler
        self._leases = leases
        self._patience = patience
        self._runs: WeakKeyDictionary[RunControl, _RunStream] = WeakKeyDictionary()

    async def on_streaming_response_update(
        self, update: AgentResponseUpdate, context: AgentCallbackContext
    ) -> None:
        """Append what the update holds."""
        run = await self._run_of(context)
        if run is not None:
            await self._write(run, run.translate(update))

    async def on_agent_response(self, response: AgentResponse[Any], context: AgentCallbackContext) -> None:
        """Append what is missing, then the terminal, and wait until it is in Redis."""
        run = await self._run_of(context)
        if run is not None:
            await self._write(run, run.conclude(response))
        control = current_run.get()
        current_run.set(None)
        if run is not None and run.has_ended:
            # Whoever noticed the end in Redis before its reply came here has asked this execution to stop.
            self._forget(run.control)
        elif control is not None and control.stop_reason is StopReason.SUPERSEDED:
            # The framework swallows errors but not this: it unwinds, and keeps nothing of this execution.
            raise asyncio.CancelledError

    async def _run_of(self, context: AgentCallbackContext) -> _RunStream | None:
        """The stream of the run that this task executes; ``None``: nothing of it is to be written."""
        control = current_run.get()
        if control is None or control.run != context.correlation_id:
            control = await self._begin(context)
        return self._runs.get(control)

    async def _begin(self, context: AgentCallbackContext) -> RunControl:
        control = RunControl(context.session_id or "", context.correlation_id)
        current_run.set(control)
        try:
            writer = await self._new_writer(control, context.agent_name)
        except RunEnded:
            _log.info("run has ended before, not executed again: %s", control)
            control.stop(StopReason.SUPERSEDED)
        except (StreamUnavailable, RunLost):
            _log.error("run goes on without its stream: %s", control)
        else:
            execution = RunExecution(self._handler().runs.telemetry, context.agent_name, writer.attempt)
            run = self._runs[control] = _RunStream(control, writer, context.agent_name, execution)
            # Who is stopped for good is told nothing more: its task unwinds.
            asyncio.current_task().add_done_callback(lambda _task: run.end(ABANDONED))  # type: ignore[union-attr]
        return control

    async def _new_writer(
        self, control: RunControl, agent: str, forgotten: Forgotten | None = None
    ) -> RunWriter:
        """Begin an attempt; one that was ``forgotten`` is to be written again.

        Raises:
            AttemptFenced: another execution has taken over what was forgotten.
            RunLost: Redis forgets runs as fast as they are registered.
            RunEnded: the run has its terminal.
            StreamUnavailable: Redis does not answer.
        """
        handler, owner = self._handler(), new_id()
        control.owners.add(owner)
        attempt = await handler.begin_run(
            control.conversation_id,
            control.run,
            agent=agent,
            owner=owner,
            patient=True,
            forgotten=forgotten,
        )
        control.attempt, control.trace = attempt.number, attempt.trace
        if attempt.cancel_requested:
            control.stop(StopReason.CANCELLED)
        if self._leases is not None:
            self._leases.keep(
                control.conversation_id,
                control.run,
                agent=agent,
                attempt=attempt.number,
                control=control,
                trace=attempt.trace,
            )
        return RunWriter(handler.runs, attempt, control, patience=self._patience)

    async def _write(self, run: _RunStream, entries: Iterable[NewEntry]) -> None:
        control = run.control
        try:
            for entry in entries:
                try:
                    await run.put(entry)
                except (RunLost, SequenceGap) as lost:
                    await self._write_again(run, lost)
        except WriterRefused as refused:
            _log.warning("run stopped, %s: %s", refused.code, control)
            run.end(SUPERSEDED)
            self._forget(control)
            control.stop(StopReason.SUPERSEDED)
        except StreamUnavailable:
            _log.error("run goes on without its stream: %s", control)
            run.end(STREAM_LOST)
            self._forget(control)
        except Exception as error:  # noqa: BLE001 - the framework would swallow it, and the lease be kept for ever
            _log.error("run goes on without its stream: %s error=%s", control, type(error).__name__)
            run.end(STREAM_LOST)
            self._forget(control)

    def _forget(self, control: RunControl) -> None:
        """Write nothing more of a run, and let its lease go."""
        self._runs.pop(control, None)
        if self._leases is not None:
            self._leases.release(control.conversation_id, control.run, control)

    async def _write_again(self, run: _RunStream, lost: WriterRefused) -> None:
        """The store forgot what it had acknowledged (flushed, or a failover); nothing is lost here yet."""
        for _ in range(REWRITES):
            _log.warning("stream is written again, %s: %s", lost.code, run.control)
            try:
                await run.write_again(await self._new_writer(run.control, run.agent, run.forgotten))
                return
            except (RunLost, SequenceGap) as refused:
                lost = refused
        raise StreamUnavailable


class _RunStream:
    """One execution: its writer, and what was streamed so far."""

    def __init__(self, control: RunControl, writer: RunWriter, agent: str, execution: RunExecution) -> None:
        self.control = control
        self.agent = agent
        self._writer = writer
        self._execution = execution
        self._joiner = TextJoiner()
        self._put: list[NewEntry] = []
        self._streamed: list[str] = []
        self._calls: dict[str, dict[str, str]] = {}
        self._failure: Content | None = None
        #: The terminal is in Redis.
        self.has_ended = False

    @property
    def forgotten(self) -> Forgotten:
        """What is to be written again once Redis has forgotten it."""
        return self._writer.forgotten

    async def put(self, entry: NewEntry) -> None:
        """Hand an entry to the writer; wait until the terminal is in Redis."""
        self._put.append(entry)
        await self._writer.put(entry)
        if entry.status is not None:
            await self._has_ended(entry)

    async def write_again(self, writer: RunWriter) -> None:
        """Write all of it with another attempt, whose ``reset`` told readers to discard what they have."""
        writer.carry_on(self._writer)
        self._writer = writer
        for entry in self._put:
            await self._writer.put(entry)
            if entry.status is not None:
                await self._has_ended(entry)

    async def _has_ended(self, terminal: NewEntry) -> None:
        await self._writer.flush()
        self.has_ended = True
        self.end(terminal.status.value if terminal.status else "", code=terminal.code or "")

    def end(self, outcome: str, code: str = "") -> None:
        """Tell how it ended. Doing it again does nothing."""
        self._execution.end(
            outcome, code, chunks=len(self._streamed), entries=len(self._put), writer=self._writer
        )

    def translate(self, update: AgentResponseUpdate) -> list[NewEntry]:
        """An update's entries."""
        entries: list[NewEntry] = []
        for content in update.contents:
            if content.type == "function_call":
                self._collect_call(content)
                continue
            entries += self._finished_calls()
            entries += self._entries_of(content)
        if update.finish_reason is not None:
            # The tools are called now, and may take long.
            entries += self._finished_calls()
        return entries

    def _entries_of(self, content: Content) -> list[NewEntry]:
        match content.type:
            case "text":
                # "replace" repeats the whole text at the end of it; the final response has the last word.
                text = "" if content.merge_mode == "replace" else self._joiner.feed(content.text or "")
                return [self._text(text)] if text else []
            case "text_reasoning":
                return [_event(REASONING, {"text": content.text})] if content.text else []
            case "function_result":
                failed = {} if content.exception is None else {"failed": True}
                return [_event(TOOL_RESULT, {"call_id": content.call_id, "result": content.result, **failed})]
            case "usage":
                return [_event(USAGE, dict(content.usage_details or {}))]
            case "error":
                self._failure = content
                return []
            case _:
                described = content.to_dict(exclude={"raw_representation"}, exclude_none=True)
                return [_event(content.type, described)]

    def _collect_call(self, content: Content) -> None:
        """Providers send a call's arguments in fragments; readers want one entry for a call."""
        call_id = content.call_id or next(reversed(self._calls), "")
        call = self._calls.setdefault(call_id, {"call_id": call_id, "name": "", "arguments": ""})
        call["name"] = content.name or call["name"]
        arguments = content.arguments
        if isinstance(arguments, str):
            call["arguments"] += arguments
        elif arguments is not None:
            call["arguments"] = dict(arguments)  # type: ignore[assignment]  # a provider that sends it whole

    def _finished_calls(self) -> list[NewEntry]:
        if not self._calls:
            return []
        calls, self._calls = self._calls, {}
        return [_event(TOOL_CALL, call) for call in calls.values()]

    def _text(self, text: str) -> NewEntry:
        self._streamed.append(text)
        return NewEntry(timestamp=_now(), text=text)

    def conclude(self, response: AgentResponse[Any]) -> Iterator[NewEntry]:
        """What is still missing, and the terminal."""
        yield from self._finished_calls()
        held = self._joiner.flush()
        if held:
            yield self._text(held)
        failure = self._failure or _error_of(response)
        if failure is None:
            yield from self._correction(_text_of(response))
        yield _terminal(failure)

    def _correction(self, final: str) -> list[NewEntry]:
        """The final response wins over what was streamed."""
        streamed = "".join(self._streamed)
        if final == streamed or not final:
            return []
        entries = []
        if not final.startswith(streamed):
            entries.append(_event(RESET, {"reason": "the final answer differs from what was streamed"}))
            streamed = ""
        missing = final[len(streamed) :]
        pieces = range(0, len(missing), CORRECTION_PIECE)
        return entries + [self._text(missing[at : at + CORRECTION_PIECE]) for at in pieces]


def _event(kind: str, data: dict[str, Any]) -> NewEntry:
    return NewEntry(timestamp=_now(), type=kind, data={name: _bounded(value) for name, value in data.items()})


def _bounded(value: Any) -> Any:
    text = value if isinstance(value, str) else None
    if text is None:
        return value
    text = storable(text)
    return text if len(text) <= EVENT_DATA_LIMIT else text[:EVENT_DATA_LIMIT] + "…"


def _terminal(failure: Content | None) -> NewEntry:
    if failure is None:
        return NewEntry(timestamp=_now(), status=RunStatus.COMPLETED)
    if failure.error_code == CANCELLED_CODE:
        return NewEntry(timestamp=_now(), status=RunStatus.CANCELLED)
    return NewEntry(
        timestamp=_now(),
        status=RunStatus.FAILED,
        error=storable(failure.message or "The agent failed."),
        code=failure.error_code or "agent_failed",
    )


def _error_of(response: AgentResponse[Any]) -> Content | None:
    contents = (content for message in response.messages for content in message.contents)
    return next((content for content in contents if content.type == "error"), None)


def _text_of(response: AgentResponse[Any]) -> str:
    """The answer's text. ``response.text`` puts spaces between a message's contents."""
    contents = (content for message in response.messages for content in message.contents)
    return storable("".join(content.text or "" for content in contents if content.type == "text"))


def _now() -> int:
    return time.time_ns() // 1_000_000
