"""What has to hold of a stored conversation, whatever failed (docs/protocol.md, 2 and 3), and does not.

Pure. A finding is a sentence that names the entry or the key, and says what it means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from inspector.timeline import seconds
from streaming.entries import RESET, RunStatus, StreamChunk
from streaming.identifiers import keys_of, parse_entry_id
from streaming.store.conversations import FOR_EVER, RunRecord, StoredConversation
from streaming.store.run_states import RunState

#: Findings of one conversation that are told: where more is broken, more sentences don't help.
MOST_FINDINGS: Final = 200
#: A lease that lapsed so long ago, in milliseconds, is not just late: a round trip may be slow.
LATE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be."""

    #: A stable word for programs.
    code: str
    conversation_id: str
    #: ``None``: of the conversation as a whole, or of an entry that names no run.
    run: str | None
    #: The entry where it is seen, if it is at one.
    entry_id: str | None
    #: What is there, and what it means.
    message: str


@dataclass(slots=True)
class _Seen:
    """What the entries of one run have told so far."""

    attempt: int = 1
    #: ``None``: the attempt has begun and has no entry yet.
    next: int | None = None
    entries: int = 0
    first_id: str | None = None
    last_id: str | None = None
    terminal: StreamChunk | None = None
    told_after_terminal: bool = False


@dataclass(slots=True)
class ConversationCheck:
    """Checks one conversation: give it all entries in order, then ask for its findings."""

    conversation_id: str
    findings: list[Finding] = field(default_factory=list)
    entries: int = 0
    _runs: dict[str, _Seen] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """How many registered runs have entries."""
        return len(self._runs)

    def take(self, entry: StreamChunk) -> None:
        """Look at the next entry."""
        self.entries += 1
        if entry.run is None:
            return
        seen = self._runs.setdefault(entry.run, _Seen())
        if seen.terminal is not None:
            self._after_terminal(seen, entry)
            return
        if self._is_of_current_attempt(seen, entry):
            self._sequence(seen, entry)
        self._form(entry)
        seen.first_id = seen.first_id or entry.entry_id
        seen.last_id = entry.entry_id
        seen.entries += 1
        if entry.is_terminal:
            seen.terminal = entry

    def conclude(self, before: StoredConversation, after: StoredConversation | None = None) -> list[Finding]:
        """Compare the entries with what was stored before they were read, and after.

        Args:
            before: The conversation before its entries were read.
            after: The same after; ``None``: nothing can have changed, as in a file.
        """
        self._keys(before)
        later = {record.run: record for record in (after or before).runs}
        now = (after or before).now
        for record in before.runs:
            self._record(record, later.get(record.run), now)
        return self.findings[:MOST_FINDINGS]

    def _add(self, code: str, message: str, *, run: str | None = None, entry_id: str | None = None) -> None:
        self.findings.append(Finding(code, self.conversation_id, run, entry_id, message))

    def _at(self, entry: StreamChunk, code: str, message: str) -> None:
        self._add(code, message, run=entry.run, entry_id=entry.entry_id)

    def _after_terminal(self, seen: _Seen, entry: StreamChunk) -> None:
        terminal = seen.terminal.entry_id if seen.terminal is not None else ""
        if entry.is_terminal:
            self._at(
                entry,
                "second_terminal",
                f"Entry {entry.entry_id} ends run {entry.run} a second time, after {terminal}: readers that "
                "came late were told another end than those who were there.",
            )
        elif not seen.told_after_terminal:
            seen.told_after_terminal = True
            self._at(
                entry,
                "entry_after_terminal",
                f"Entry {entry.entry_id} of run {entry.run} comes after the run's end at {terminal}: readers "
                "have left by then and never see it.",
            )

    def _is_of_current_attempt(self, seen: _Seen, entry: StreamChunk) -> bool:
        """Whether it may be there; a later attempt takes over."""
        if entry.attempt < seen.attempt:
            self._at(
                entry,
                "older_attempt",
                f"Entry {entry.entry_id} is of attempt {entry.attempt} of run {entry.run}, but attempt "
                f"{seen.attempt} had taken over: two producers wrote into one answer.",
            )
            return False
        if entry.attempt > seen.attempt:
            if seen.entries and entry.type != RESET:
                self._at(
                    entry,
                    "no_reset",
                    f"Attempt {entry.attempt} of run {entry.run} begins at {entry.entry_id} without a "
                    "reset: readers show its text after that of the attempt before.",
                )
            seen.attempt, seen.next = entry.attempt, None
        return True

    def _sequence(self, seen: _Seen, entry: StreamChunk) -> None:
        expected = seen.next or 0
        if entry.sequence is None:
            self._at(
                entry,
                "no_sequence",
                f"Entry {entry.entry_id} of run {entry.run} has no sequence: whether one is missing before "
                "it can't be told.",
            )
            return
        if entry.sequence > expected:
            missing = entry.sequence - expected
            where = "at the start of" if seen.next is None else f"after sequence {expected - 1} of"
            self._at(
                entry,
                "hole",
                f"{missing} {'entry is' if missing == 1 else 'entries are'} missing {where} attempt "
                f"{entry.attempt} of run {entry.run}, before {entry.entry_id}: they were trimmed or deleted, "
                "and readers are told of a gap.",
            )
        elif entry.sequence < expected:
            self._at(
                entry,
                "repeated",
                f"Entry {entry.entry_id} of run {entry.run} has sequence {entry.sequence} where {expected} "
                "was due: readers get a piece of the answer twice, or out of order.",
            )
        seen.next = entry.sequence + 1

    def _form(self, entry: StreamChunk) -> None:
        if entry.is_done and entry.status in (RunStatus.FAILED, RunStatus.INTERRUPTED):
            self._at(
                entry,
                "unclear_end",
                f"Entry {entry.entry_id} ends run {entry.run} as {entry.status} and as done: some readers "
                "take it for an answer.",
            )

    def _keys(self, stored: StoredConversation) -> None:
        for key in stored.keys:
            if key.ttl == FOR_EVER:
                self._add(
                    "no_ttl",
                    f"The key {key.name} has no time to live: it stays in Redis until somebody deletes it.",
                )
        stream = keys_of(stored.conversation_id).stream
        for key in stored.keys:
            if key.name == stream and key.kind != "stream":
                self._add(
                    "not_a_stream",
                    f"The key {key.name} holds a {key.kind}, not a stream: nothing can be read or written.",
                )

    def _record(self, record: RunRecord, later: RunRecord | None, now: int) -> None:
        state = record.state
        if state is None:
            self._add(
                "damaged_state",
                f"The state of run {record.run} can't be read: something else than this service wrote it.",
                run=record.run,
            )
            return
        newer = later.state if later is not None else None
        if newer is None or (newer.attempt, newer.status) != (state.attempt, state.status):
            # It went on, or expired, while its entries were read: what they tell is of two times.
            return
        seen = self._runs.get(record.run, _Seen(attempt=state.attempt))
        if state.entries and not seen.entries:
            self._gone(state)
            return
        self._compare(state, newer, seen)
        if state.status.is_terminal:
            self._ended(state, seen)
        else:
            self._running(state, later or record, seen, now)

    def _gone(self, state: RunState) -> None:
        remedy = (
            "A read over HTTP rebuilds the answer, if the task hub still has it."
            if state.status.is_terminal
            else "Its writer notices, and writes it again."
        )
        self._add(
            "stream_gone",
            f"Run {state.run} is {state.status} with {state.entries} entries, but the stream has none of "
            f"them: it was deleted, or Redis lost it. {remedy}",
            run=state.run,
            entry_id=state.terminal,
        )

    def _compare(self, state: RunState, newer: RunState, seen: _Seen) -> None:
        # The end of a run that no attempt has begun is written as if by the first.
        attempt = max(state.attempt, 1)
        stored = (seen.next or 0) if seen.attempt == attempt else 0
        if seen.attempt > attempt:
            self._add(
                "state_behind",
                f"The state of run {state.run} is at attempt {state.attempt}, its entries are at attempt "
                f"{seen.attempt} ({seen.last_id}): Redis lost the newer state, by a failover perhaps.",
                run=state.run,
                entry_id=seen.last_id,
            )
        elif not state.entries <= stored <= newer.entries:
            where = f"up to {seen.last_id}" if seen.last_id else "in the stream"
            meaning = (
                "entries that were acknowledged are gone; a read tells of a gap, or rebuilds the answer"
                if stored < state.entries
                else "Redis lost the newer state, by a failover perhaps; its writer writes it again"
            )
            self._add(
                "state_differs",
                f"The state of run {state.run} counts {state.entries} entries in attempt {state.attempt}, "
                f"but there are {stored} {where}: {meaning}.",
                run=state.run,
                entry_id=seen.last_id,
            )
        if seen.first_id is not None and parse_entry_id(seen.first_id) <= parse_entry_id(state.start):
            self._add(
                "before_start",
                f"Entry {seen.first_id} of run {state.run} lies before the run's start, {state.start}: a "
                "read of the run leaves it out.",
                run=state.run,
                entry_id=seen.first_id,
            )

    def _ended(self, state: RunState, seen: _Seen) -> None:
        terminal = seen.terminal
        if terminal is None:
            self._add(
                "no_terminal",
                f"Run {state.run} has ended as {state.status}, but its terminal {state.terminal or ''} is "
                "not in the stream: it was deleted, or Redis lost it. A read over HTTP rebuilds the answer.",
                run=state.run,
                entry_id=state.terminal,
            )
        elif (terminal.entry_id, terminal.status) != (state.terminal, state.status):
            self._add(
                "terminal_differs",
                f"Entry {terminal.entry_id} ends run {state.run} as {terminal.status}, but its state says "
                f"{state.status} at {state.terminal}: the status route and the stream tell different ends.",
                run=state.run,
                entry_id=terminal.entry_id,
            )

    def _running(self, state: RunState, record: RunRecord, seen: _Seen, now: int) -> None:
        if seen.terminal is not None:
            self._add(
                "not_ended",
                f"Entry {seen.terminal.entry_id} ends run {state.run}, but its state says {state.status}: "
                "Redis lost the newer state, by a failover perhaps.",
                run=state.run,
                entry_id=seen.terminal.entry_id,
            )
            return
        late = now - (record.lease or 0)
        if record.lease is None or late > LATE:
            since = f"its lease ended {seconds(late)} ago" if record.lease is not None else "it has no lease"
            who = "waits for" if state.status is RunStatus.PENDING else "has lost"
            self._add(
                "no_producer",
                f"Run {state.run} is {state.status} but {who} its producer: {since}, so the process that had "
                "accepted or executed it is gone. The next reader ends it as interrupted, unless a scheduler "
                "resumes it.",
                run=state.run,
                entry_id=seen.last_id,
            )
