"""Trails in Redis, beside their conversation's stream: one script for each change."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from bridges.audit_trail.events import EventType, StoredEvent, Thread, TrailEvent
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch, Selection
from streaming.commands import Commands, checked, fields_of, milliseconds
from streaming.entries import as_text, to_json
from streaming.identifiers import EntryId, keys_of, parse_entry_id
from streaming.store.scripts import Scripts

_FOLDER: Final = Path(__file__).with_name("lua")
#: Events of one round trip: a page of the longest texts stays in the megabytes.
PAGE: Final = 500


class RedisTrailStore:
    """Trails in one Redis. Belongs to the event loop that its client belongs to."""

    def __init__(self, redis: Redis, settings: AuditTrailSettings, run_timeout: timedelta) -> None:
        """Keep trails in ``redis``.

        Args:
            redis: The event loop's client.
            settings: How many events, and for how long.
            run_timeout: The longest run: so long a deleted run's events may come late.
        """
        self._commands = Commands(redis)
        self._scripts = Scripts(self._commands, folder=_FOLDER)
        self._max_events = settings.max_events
        self._ttl = milliseconds(settings.ttl)
        self._deleted_ttl = milliseconds(settings.ttl + run_timeout)

    async def append(self, batch: Batch) -> bool:
        """Append events; see ``TrailStore``."""
        arguments: list[str | int] = [batch.run, batch.execution, batch.first]
        arguments += [self._ttl, self._deleted_ttl, self._max_events, batch.request or ""]
        arguments.append(int(batch.events[-1].closes))
        for event in batch.events:
            arguments += [event.timestamp, event.type.value, to_json(dict(event.data))]
        reply = await self._scripts.call("append", _keys(batch.thread), arguments)
        return as_text(reply) == "ok"

    async def read(self, thread: Thread, wanted: Selection) -> list[StoredEvent]:
        """Read events; see ``TrailStore``."""
        key = _keys(thread)[0]
        found: list[tuple[EntryId, str, TrailEvent]] = []
        start = f"({wanted.after}" if wanted.after is not None else "-"
        while len(found) < wanted.limit:
            page = await self._commands.page(key, "XRANGE", key, start, "+", "COUNT", PAGE)
            for entry_id, fields in page:
                run, event = _event(fields_of(fields))
                if wanted.has(run, event):
                    found.append((parse_entry_id(as_text(entry_id)), run, event))
            if len(page) < PAGE:
                break
            start = f"({as_text(page[-1][0])}"
        del found[wanted.limit :]
        requests = await self._requests(thread, {run for _, run, _ in found})
        return [StoredEvent(entry_id, run, requests.get(run), event) for entry_id, run, event in found]

    async def _requests(self, thread: Thread, runs: Collection[str]) -> dict[str, str]:
        """The messages of runs, by run."""
        if not runs:
            return {}
        fields = [f"request:{run}" for run in runs]
        key = _keys(thread)[1]
        values = await self._commands.execute(key, "HMGET", key, *fields)
        return {run: as_text(value) for run, value in zip(runs, values, strict=True) if value is not None}

    async def is_settled(self, thread: Thread, run: str) -> bool:
        """Whether a run is closed or deleted; see ``TrailStore``."""
        _, runs, _, deleted = _keys(thread)
        replies = await self._commands.execute_together(
            runs, ("HMGET", runs, f"closed:{run}"), ("HMGET", deleted, run)
        )
        return any(checked(reply)[0] is not None for reply in replies)

    async def delete(self, thread: Thread, runs: Collection[str]) -> None:
        """Delete a trail; see ``TrailStore``."""
        await self._scripts.call("delete", _keys(thread), [self._deleted_ttl, *runs])


def _keys(thread: Thread) -> list[str]:
    """Events, runs, their order, and those deleted: in the slot of the conversation's stream."""
    tag = f"{{{keys_of(thread.conversation_id).stream}}}"
    kinds = ("trail", "trail-runs", "trail-order", "trail-deleted")
    return [f"{tag}:{kind}:{thread.agent}" for kind in kinds]


def _event(held: dict[str, str]) -> tuple[str, TrailEvent]:
    event = TrailEvent(int(held["timestamp"]), EventType(held["type"]), json.loads(held["data"]))
    return held["run"], event
