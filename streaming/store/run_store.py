"""The state of runs in Redis, and every change to it: one server-side script for each.

The argument for exactly-once is in ``lua/append.lua``; this module only calls the scripts and turns their
replies into values and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from streaming.commands import Commands, fields_of, milliseconds
from streaming.entries import NewEntry, RunStatus, StreamChunk, as_text, to_json
from streaming.errors import AttemptFenced, RunEnded, RunLost, SequenceGap
from streaming.identifiers import keys_of
from streaming.shared_connection import OnReply
from streaming.store.conversations import Conversations
from streaming.store.run_states import (
    Appended,
    Attempt,
    Forgotten,
    Look,
    Renewal,
    RunState,
    Settlement,
    decode_state,
)
from streaming.store.scripts import Scripts
from streaming.store.stored_entries import entry_at
from streaming.telemetry import Facts, Telemetry, TerminalWritten

_T = TypeVar("_T")

#: A running attempt whose lease was not renewed for this long has lost its producer. Renewed several times
#: within it, so that one slow round trip ends nothing.
LEASE: Final = timedelta(seconds=10)
#: What a run would be ended with, where it is only asked whether it would.
_INTERRUPTED: Final = NewEntry(0, status=RunStatus.INTERRUPTED)
#: Runs of a conversation that can be asked for by name; older ones stay readable as entries.
RUNS_REMEMBERED: Final = 100
#: Workers hear of a cancel on this channel at once; the flag in the run's state is what counts.
CONTROL_CHANNEL: Final = "agent-stream-control"
#: Wake-ups carry the entries themselves up to this size, so that readers need not ask. More is read from the
#: stream: a burst in the subscription's buffer would have Redis drop the subscriber.
CARRIED_BYTES: Final = 8_192
#: Written to see whether Redis takes writes, and gone soon after.
PROBE_KEY: Final = "{agent-stream:}:probe"
PROBE_TTL: Final = timedelta(seconds=1)


class RunStore:
    """Runs of conversations, in one Redis."""

    def __init__(
        self,
        redis: Redis,
        stream_ttl: timedelta,
        *,
        wait_replicas: int = 0,
        telemetry: Telemetry | None = None,
    ) -> None:
        """Keep runs in ``redis``.

        Args:
            redis: The event loop's client.
            stream_ttl: How long a stream lives after its end; after an entry at least nine tenths of it.
            wait_replicas: An append counts only when so many replicas have it.
            telemetry: Told of what becomes of runs, also by all who write or read through this store.
        """
        self.telemetry: Final = telemetry or Telemetry()
        #: How everybody who reads or writes through this store asks its Redis.
        self.commands: Final = Commands(redis)
        self._scripts = Scripts(self.commands, wait_replicas=wait_replicas)
        self._ttl, self._lease = milliseconds(stream_ttl), milliseconds(LEASE)
        # A cluster passes every message on to all of its nodes.
        self._carried = 0 if self.commands.is_cluster else CARRIED_BYTES

    @property
    def conversations(self) -> Conversations:
        """What is stored, for those who look at it."""
        return Conversations(self.commands)

    async def register(
        self, conversation_id: str, run: str, agent: str, *, attempt: int = 0, trace: str = ""
    ) -> RunState:
        """Make a run known before its agent is told of it. Registering it again changes nothing.

        Args:
            conversation_id: The conversation.
            run: The framework's correlation id.
            agent: The agent's name.
            attempt: Of a run in progress that Redis has forgotten; its producer then writes it again.
            trace: W3C ``traceparent`` of what is to follow the request that starts the run.

        Raises:
            RunLost: Redis forgets runs as fast as they are registered.
        """
        keys = keys_of(conversation_id)
        # Twice: Redis may be flushed between the two calls.
        for _ in range(2):
            await self._scripts.call(
                "register",
                [keys.stream, keys.runs, keys.run(run)],
                [run, agent, self._ttl, self._lease, RUNS_REMEMBERED, keys.channel, attempt, trace],
            )
            state = await self.state(conversation_id, run)
            if state is not None:
                return state
        raise RunLost

    async def begin(
        self,
        conversation_id: str,
        run: str,
        *,
        owner: str,
        reason: str,
        reopen: bool = False,
        forgotten: Forgotten | None = None,
    ) -> Attempt:
        """Take the run over for a new attempt; entries of an older one are followed by a ``reset``.

        Args:
            conversation_id: The conversation.
            run: A registered run.
            owner: Names this execution: beginning again with the same name changes nothing.
            reason: Told to readers in the ``reset``, where one is needed.
            reopen: Also a run that has ended, if its terminal is gone from the stream.
            forgotten: The attempt that this one is to write again. Then there always is a ``reset``, and its
                id and all later ones are above those that readers may have.

        Raises:
            AttemptFenced: another execution has taken over the attempt that is to be written again.
            RunEnded: the run has its terminal; it must not be executed again.
            RunLost: there is no such run.
        """
        keys = keys_of(conversation_id)
        reply = await self._scripts.call(
            "begin",
            [keys.stream, keys.run(run)],
            [
                run,
                owner,
                self._ttl,
                self._lease,
                keys.channel,
                to_json({"reason": reason}),
                int(reopen),
                *((forgotten.attempt.number, forgotten.attempt.owner) if forgotten else ("", "")),
                forgotten.newest if forgotten else "",
            ],
        )
        _raise_refusal(reply, first=0)
        number, next_sequence, cancel, began, created = (int(value) for value in reply[1:6])
        return Attempt(
            conversation_id=conversation_id,
            run=run,
            number=number,
            next_sequence=next_sequence,
            cancel_requested=bool(cancel),
            owner=owner,
            began=began,
            created=created,
            trace=as_text(reply[6]),
        )

    async def append(self, attempt: Attempt, first: int, entries: Sequence[NewEntry]) -> Appended:
        """Append entries with the sequences ``first``, ``first + 1`` …, once, however often it is repeated.

        Raises:
            AttemptFenced: a later attempt has taken over.
            RunEnded: the run has its terminal.
            RunLost: the run's state is gone, or older than this attempt, or its stream was deleted.
            SequenceGap: an earlier entry is missing.
            RedisError: Redis is away, or too few replicas have the entries: append them again.
        """
        keys, arguments = self._append_call(attempt, first, entries)
        return _appended(await self._scripts.call("append", keys, arguments, is_replicated=True), first)

    def send_append(
        self,
        attempt: Attempt,
        first: int,
        entries: Sequence[NewEntry],
        on_outcome: Callable[[Appended | Exception], None],
    ) -> bool:
        """``append`` without a task: ``on_outcome`` is given what it returns or raises.

        Returns whether it leaves at the loop's next turn; else it takes a few more.
        """
        keys, arguments = self._append_call(attempt, first, entries)
        take = _taking(lambda reply: _appended(reply, first), on_outcome)
        return self._scripts.send("append", keys, arguments, take, is_replicated=True)

    def _append_call(
        self, attempt: Attempt, first: int, entries: Sequence[NewEntry]
    ) -> tuple[tuple[str, str, str], list[str | int]]:
        """The script's keys and arguments."""
        stream, run, runs, channel = attempt.names
        terminal = entries[-1].status
        arguments: list[str | int] = [attempt.run, attempt.number, attempt.owner, first, self._ttl, channel]
        arguments += (terminal.value if terminal else "", len(entries), self._carried, self._lease)
        for entry in entries:
            fields = entry.fields()
            arguments.append(len(fields))
            arguments += fields
        return (stream, run, runs), arguments

    async def append_anonymous(self, conversation_id: str, fields: Sequence[str]) -> str:
        """Append one entry that belongs to no registered run. Returns its id."""
        keys = keys_of(conversation_id)
        return as_text(
            await self._scripts.call(
                "append_anonymous", [keys.stream], [self._ttl, keys.channel, self._carried, *fields]
            )
        )

    async def settle(
        self, state: RunState, outcome: NewEntry, *, patience: timedelta | None, confirm: bool = True
    ) -> Settlement:
        """End a run whose producer is gone, once and fenced by the attempt in ``state``.

        Args:
            state: The run as the caller saw it.
            outcome: The terminal entry.
            patience: How long after its lease the run is given up; ``None``: at once.
            confirm: ``False`` only says whether it would.
        """
        call = self._settle_call(state, outcome, patience, confirm=confirm)
        settlement = _look(await self._scripts.call("settle", *call)).settlement
        if settlement is Settlement.SETTLED:
            status = outcome.status or RunStatus.INTERRUPTED
            ended = TerminalWritten(state.agent, status.value, outcome.code or "")
            self.telemetry.terminal_written(ended)
            facts: Facts = {"agent": state.agent, "attempt": state.attempt, "entries": state.entries}
            self.telemetry.traces.moment(f"run {status.value}", state.trace, facts)
        return settlement

    def send_look(self, state: RunState, on_outcome: Callable[[Look | Exception], None]) -> None:
        """Tell ``on_outcome`` whether a run's producer is there, or what went wrong; without a task."""
        call = self._settle_call(state, _INTERRUPTED, timedelta(0), confirm=False)
        self._scripts.send("settle", *call, _taking(_look, on_outcome))

    def _settle_call(
        self, state: RunState, outcome: NewEntry, patience: timedelta | None, *, confirm: bool
    ) -> tuple[tuple[str, str], tuple[str | int, ...]]:
        """The script's keys and arguments."""
        keys = keys_of(state.conversation_id)
        status = outcome.status or RunStatus.INTERRUPTED
        most = -1 if patience is None else milliseconds(patience)
        arguments = (state.run, state.attempt, self._ttl, keys.channel, status.value, most, int(confirm))
        return (keys.stream, keys.run(state.run)), (*arguments, self._lease, *outcome.fields()[4:])

    async def fail_unstarted(self, state: RunState) -> bool:
        """End a run that its task hub did not take. Returns whether this call did."""
        error = "The task hub did not take the run."
        outcome = NewEntry(0, status=RunStatus.FAILED, error=error, code="not_started")
        return await self.settle(state, outcome, patience=None) is Settlement.SETTLED

    async def cancel_unstarted(self, state: RunState) -> bool:
        """Cancel a run that no attempt has begun. Returns whether this call did: it may begin meanwhile."""
        outcome = NewEntry(0, status=RunStatus.CANCELLED)
        return await self.settle(state, outcome, patience=None) is Settlement.SETTLED

    async def renew(self, conversation_id: str, run: str, attempt: int) -> Renewal | None:
        """Renew the lease and slide the TTL of the run's keys; ``None``: the run is gone."""
        return _renewal(await self._scripts.call("renew", *self._renew_call(conversation_id, run, attempt)))

    def send_renew(
        self,
        conversation_id: str,
        run: str,
        attempt: int,
        on_outcome: Callable[[Renewal | Exception | None], None],
    ) -> None:
        """``renew`` without a task: ``on_outcome`` is given what it returns or raises."""
        call = self._renew_call(conversation_id, run, attempt)
        self._scripts.send("renew", *call, _taking(_renewal, on_outcome))

    def _renew_call(
        self, conversation_id: str, run: str, attempt: int
    ) -> tuple[tuple[str, str, str], tuple[int, int, int]]:
        """The script's keys and arguments."""
        keys = keys_of(conversation_id)
        return (keys.stream, keys.runs, keys.run(run)), (attempt, self._ttl, self._lease)

    async def request_cancel(self, conversation_id: str, run: str) -> RunStatus | None:
        """Ask a run to stop. Returns where it stood; ``None`` if there is no such run."""
        key = keys_of(conversation_id).run(run)
        reply = await self._scripts.call("cancel", [key], [CONTROL_CHANNEL, conversation_id, run])
        status = as_text(reply[0])
        return None if status == "lost" else RunStatus(status)

    async def latest_run(self, conversation_id: str) -> RunState | None:
        """The conversation's latest registered run, if its state is still there."""
        runs = keys_of(conversation_id).runs
        newest = await self.commands.execute(runs, "ZREVRANGE", runs, 0, 0)
        return await self.state(conversation_id, as_text(newest[0])) if newest else None

    async def registered(self, conversation_id: str) -> list[str]:
        """The conversation's registered runs, the latest first."""
        runs = keys_of(conversation_id).runs
        return [as_text(run) for run in await self.commands.execute(runs, "ZREVRANGE", runs, 0, -1)]

    async def state(self, conversation_id: str, run: str) -> RunState | None:
        """What is known of one run; ``None`` if it never was or has expired."""
        key = keys_of(conversation_id).run(run)
        held = fields_of(await self.commands.execute(key, "HGETALL", key))
        if "status" not in held:
            return None
        return decode_state(conversation_id, run, held)

    async def terminal(self, state: RunState) -> StreamChunk | None:
        """The run's terminal entry, if the run has ended and the entry is retained."""
        if state.terminal is None:
            return None
        stream = keys_of(state.conversation_id).stream
        return await entry_at(self.commands, stream, state.terminal)

    async def ping(self) -> None:
        """Ask Redis whether it takes writes: one that is full or a replica answers too.

        Raises:
            RedisError: it does not.
        """
        await self.commands.execute(PROBE_KEY, "SET", PROBE_KEY, 1, "PX", milliseconds(PROBE_TTL))

    async def stream_exists(self, conversation_id: str) -> bool:
        """Whether the conversation has entries."""
        stream = keys_of(conversation_id).stream
        return bool(await self.commands.execute(stream, "EXISTS", stream))

    async def unfinished(self) -> list[RunState]:
        """All runs without a terminal. Walks the whole key space: for the start of an embedded server."""
        found: list[RunState] = []
        async for key in self.commands.redis.scan_iter(match="{agent-stream:*}:run:*", count=1_000):
            tag, _, run = as_text(key).partition("}:run:")
            state = await self.state(tag.removeprefix("{agent-stream:"), run)
            if state is not None and not state.status.is_terminal:
                found.append(state)
        return found


def _taking(read: Callable[[Any], _T], on_outcome: Callable[[_T | Exception], None]) -> OnReply:
    """Gives ``on_outcome`` what ``read`` makes of a reply, or the error."""

    def take(reply: Any) -> None:
        outcome: _T | Exception
        try:
            outcome = reply if isinstance(reply, Exception) else read(reply)
        except Exception as failure:  # noqa: BLE001 - it is for the one who asked
            outcome = failure
        on_outcome(outcome)

    return take


def _look(reply: Sequence[Any]) -> Look:
    settlement = Settlement(as_text(reply[0]))
    return Look(settlement, as_text(reply[1]) if settlement is Settlement.ALIVE else None)


def _renewal(reply: Sequence[Any]) -> Renewal | None:
    status = as_text(reply[0])
    if status == "lost":
        return None
    return Renewal(RunStatus(status), int(reply[1]), bool(reply[2]), as_text(reply[3]))


def _appended(reply: Sequence[Any], first: int) -> Appended:
    if reply[0] != b"ok":
        _raise_refusal(reply, first=first)
    return Appended([as_text(entry_id) for entry_id in reply[3:]], bool(reply[1]), bool(reply[2]))


def _raise_refusal(reply: Sequence[Any], *, first: int) -> None:
    outcome = as_text(reply[0])
    if outcome == "ok":
        return
    if outcome == "fenced":
        raise AttemptFenced(f"Attempt {int(reply[1])} has taken over the run.")
    if outcome == "ended":
        raise RunEnded(f"The run has ended: {as_text(reply[1])}.")
    if outcome == "gap":
        raise SequenceGap(f"The next sequence is {int(reply[1])}, not {first}.")
    raise RunLost
