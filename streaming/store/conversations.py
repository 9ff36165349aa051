"""What is stored of conversations, for those who look at it: nothing here changes anything.

Reading a conversation costs a round trip or two; finding them walks the key space, and so is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from streaming.commands import Commands, checked, fields_of
from streaming.entries import as_text, flat_fields
from streaming.identifiers import FIRST, EntryId, conversation_of, keys_of, split_entry_id
from streaming.store.run_states import RunState, decode_state
from streaming.store.stored_entries import PAGE

#: Keys that one step of a walk looks at: about a millisecond of the server's time.
SCAN_STEP: Final = 1_000
#: Conversations asked about at the same time.
ASKED_AT_ONCE: Final = 100
#: What ``PTTL`` answers for a key that never expires, and for one that is not there.
FOR_EVER: Final = -1
GONE: Final = -2
_MATCH: Final = "*agent-stream:*"

#: An entry as it is stored: its id, and field, value, field, value …, bytes as they are.
RawEntry = tuple[str, list[bytes]]


@dataclass(frozen=True, slots=True)
class Found:
    """Conversations that a walk over the keys came across."""

    conversation_ids: tuple[str, ...]
    #: Every key was looked at.
    is_whole: bool


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One of a conversation's keys."""

    name: str
    #: What Redis says it is: ``stream``, ``zset``, ``hash``, ``string``.
    kind: str
    #: Milliseconds it has left; ``FOR_EVER``.
    ttl: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The state of a run, as it is stored."""

    conversation_id: str
    run: str
    #: docs/protocol.md, 2.4.
    fields: Mapping[str, str]

    @property
    def state(self) -> RunState | None:
        """What the fields say; ``None``: they are damaged."""
        try:
            return decode_state(self.conversation_id, self.run, self.fields)
        except (KeyError, ValueError):
            return None

    @property
    def lease(self) -> int | None:
        """Until when it is held, Unix time in milliseconds by the clock of Redis; ``None``: it is not."""
        value = self.fields.get("lease", "")
        return int(value) if value.isascii() and value.isdigit() else None

    @property
    def is_cancel_requested(self) -> bool:
        """Whether somebody asked it to stop."""
        return "cancel" in self.fields

    @property
    def owner(self) -> str:
        """Names the execution that holds the attempt; empty: none has begun."""
        return self.fields.get("owner", "")


@dataclass(frozen=True, slots=True)
class Glance:
    """A conversation in short."""

    conversation_id: str
    entries: int
    #: The last entry's id; ``FIRST``: there is none.
    newest: EntryId
    #: Milliseconds that its stream has left, or its runs where there is no stream; ``FOR_EVER``, ``GONE``.
    ttl: int
    latest_run: RunRecord | None
    #: ``False``: its key holds something else than a stream.
    is_stream: bool

    @property
    def latest(self) -> int:
        """When something last happened, Unix time in milliseconds by the clock of Redis."""
        state = self.latest_run.state if self.latest_run is not None else None
        return max(self.newest.milliseconds, state.created if state is not None else 0)


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """All that is stored of a conversation but its entries."""

    conversation_id: str
    entries: int
    keys: tuple[StoredKey, ...]
    #: In order of registration.
    runs: tuple[RunRecord, ...]
    #: The time by the clock of Redis when this was read, Unix time in milliseconds.
    now: int


class Conversations:
    """Looks at the conversations in one Redis; ``RedisError`` where that does not answer."""

    def __init__(self, commands: Commands) -> None:
        """Look by ``commands``."""
        self._commands = commands

    async def now(self) -> int:
        """The time by the clock of Redis, Unix time in milliseconds."""
        [time] = await self._commands.execute_together(keys_of("-").stream, ("TIME",))
        return _milliseconds(checked(time))

    async def find(self, *, most_keys: int) -> Found:
        """Walk over about so many keys of each server, and say which conversations they belong to."""
        found: dict[str, None] = {}
        is_whole = True
        redis: Any = self._commands.redis
        for node in redis.get_primaries() if self._commands.is_cluster else [None]:
            is_whole &= await self._find_at(node, most_keys, found)
        return Found(tuple(found), is_whole)

    async def _find_at(self, node: object, most_keys: int, found: dict[str, None]) -> bool:
        target = {} if node is None else {"target_nodes": node}
        cursor = 0
        for _ in range(max(1, -(-most_keys // SCAN_STEP))):
            reply: Any = await cast("Any", self._commands.redis).execute_command(
                "SCAN", cursor, "MATCH", _MATCH, "COUNT", SCAN_STEP, **target
            )
            cursors, keys = reply
            cursor = int(next(iter(cursors.values())) if isinstance(cursors, dict) else cursors)
            names = (conversation_of(as_text(key)) for key in keys)
            found.update((name, None) for name in names if name is not None)
            if cursor == 0:
                return True
        return False

    async def glance(self, conversation_ids: Iterable[str]) -> list[Glance]:
        """Look at many conversations; those that have gone meanwhile are left out."""
        ids = list(conversation_ids)
        glances: list[Glance] = []
        for first in range(0, len(ids), ASKED_AT_ONCE):
            some = await asyncio.gather(*map(self._glance, ids[first : first + ASKED_AT_ONCE]))
            glances += [glance for glance in some if glance is not None]
        return glances

    async def _glance(self, conversation_id: str) -> Glance | None:
        keys = keys_of(conversation_id)
        kind, length, newest, ttl, latest, runs_ttl = await self._commands.execute_together(
            keys.stream,
            ("TYPE", keys.stream),
            ("XLEN", keys.stream),
            ("XREVRANGE", keys.stream, "+", "-", "COUNT", 1),
            ("PTTL", keys.stream),
            ("ZREVRANGE", keys.runs, 0, 0),
            ("PTTL", keys.runs),
        )
        is_stream = _is_stream(kind)
        last = checked(newest) if is_stream else []
        names = [as_text(name) for name in checked(latest)]
        if checked(ttl) == GONE and not names:
            return None
        return Glance(
            conversation_id,
            entries=int(checked(length)) if is_stream else 0,
            newest=split_entry_id(last[0][0]) if last else FIRST,
            ttl=int(checked(runs_ttl) if ttl == GONE else ttl),
            latest_run=await self.record(conversation_id, names[0]) if names else None,
            is_stream=is_stream,
        )

    async def look(self, conversation_id: str, *, agents: Iterable[str] = ()) -> StoredConversation | None:
        """Look at one conversation; ``None``: nothing is stored of it.

        Args:
            conversation_id: A valid id.
            agents: Names of agents that may remember it, besides those of its runs.
        """
        keys = keys_of(conversation_id)
        kind, length, names, time = await self._commands.execute_together(
            keys.stream,
            ("TYPE", keys.stream),
            ("XLEN", keys.stream),
            ("ZRANGE", keys.runs, 0, -1),
            ("TIME",),
        )
        runs = [as_text(name) for name in checked(names)]
        records = await self.records(conversation_id, runs)
        known = {*agents, *(record.fields.get("agent", "") for record in records)}
        # The name that the framework gives an agent's entity.
        memories = [keys.agent(f"dafx-{agent.lower()}") for agent in sorted(known) if agent]
        stored = await self._keys([keys.stream, keys.runs, *map(keys.run, runs), *memories])
        if not stored:
            return None
        return StoredConversation(
            conversation_id,
            entries=int(checked(length)) if _is_stream(kind) else 0,
            keys=stored,
            runs=tuple(records),
            now=_milliseconds(checked(time)),
        )

    async def _keys(self, names: Sequence[str]) -> tuple[StoredKey, ...]:
        """Those of the keys that there are; all of one conversation."""
        asked = [(command, name) for name in names for command in ("TYPE", "PTTL")]
        replies = [checked(reply) for reply in await self._commands.execute_together(names[0], *asked)]
        found = zip(names, replies[::2], replies[1::2], strict=True)
        return tuple(
            StoredKey(name, as_text(kind), int(ttl)) for name, kind, ttl in found if as_text(kind) != "none"
        )

    async def record(self, conversation_id: str, run: str) -> RunRecord | None:
        """The state of one run; ``None``: it never was, or has expired."""
        records = await self.records(conversation_id, [run])
        return records[0] if records else None

    async def records(self, conversation_id: str, runs: Sequence[str]) -> list[RunRecord]:
        """The states of those of the runs whose state is still there."""
        if not runs:
            return []
        keys = keys_of(conversation_id)
        asked = [("HGETALL", keys.run(run)) for run in runs]
        replies = await self._commands.execute_together(keys.stream, *asked)
        held = [fields_of(checked(reply)) for reply in replies]
        return [
            RunRecord(conversation_id, run, fields) for run, fields in zip(runs, held, strict=True) if fields
        ]

    async def entries_after(self, conversation_id: str, after: EntryId) -> list[RawEntry]:
        """The next page of entries as they are stored; a cluster's driver gives each field once."""
        stream = keys_of(conversation_id).stream
        reply = await self._commands.page(stream, "XRANGE", stream, f"({after}", "+", "COUNT", PAGE)
        return [(as_text(entry_id), _flat(fields)) for entry_id, fields in reply]


def _is_stream(kind: Any) -> bool:
    """Whether a key may be read as a stream: it is one, or nothing."""
    return as_text(checked(kind)) in ("stream", "none")


def _milliseconds(time: Sequence[Any]) -> int:
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def _flat(fields: Any) -> list[bytes]:
    return [part if isinstance(part, bytes) else str(part).encode() for part in flat_fields(fields)]
