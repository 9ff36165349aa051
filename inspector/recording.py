"""A conversation as it is stored, from Redis or from a file; and the file's format, JSON Lines.

The first line says what the file is, then come one line for each run's state, one for each entry, and a last
one that says how many entries there were: so a file that was cut off is known by its end.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from inspector.trouble import explain
from streaming.entries import StreamChunk, decode_entry
from streaming.errors import ConversationNotFound, InvalidInput, StreamingError
from streaming.identifiers import FIRST, check_conversation_id, keys_of, split_entry_id
from streaming.store.conversations import Conversations, RawEntry, RunRecord, StoredConversation, StoredKey
from streaming.store.stored_entries import PAGE

FORMAT: Final = "agent-stream-recording"
VERSION: Final = 1
#: The longest line of a file that is read, in characters: an entry may hold a mebibyte of text.
MAX_LINE: Final = 64 * 1_048_576

#: What some programs take for the end of a line, as JSON may write it instead.
_LINE_ENDS: Final = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


class DamagedRecording(StreamingError):
    """The file is no recording, or not all of one."""

    code = "damaged_recording"


@dataclass(frozen=True, slots=True)
class Recording:
    """A conversation that can be read, once or again and again."""

    stored: StoredConversation
    #: Where it was read from; ``None``: it is the file's.
    live: Conversations | None
    path: Path | None = None

    @property
    def conversation_id(self) -> str:
        """Its id."""
        return self.stored.conversation_id

    @property
    def is_stream(self) -> bool:
        """Whether it has entries that can be read: its key may hold something else."""
        stream = keys_of(self.conversation_id).stream
        return all(key.kind == "stream" for key in self.stored.keys if key.name == stream)

    async def raw_entries(self, *, most: int | None = None) -> AsyncGenerator[RawEntry, None]:
        """Its entries as they are stored, oldest first; ``most`` of them at most.

        Raises:
            RedisError: Redis does not answer.
            DamagedRecording: the file is not all there.
        """
        given = 0
        async for entry in self._from_redis(self.live) if self.live is not None else self._from_file():
            if given == most:
                return
            given += 1
            yield entry

    async def entries(self, *, most: int | None = None) -> AsyncGenerator[StreamChunk, None]:
        """Its entries as readers see them."""
        async for entry_id, fields in self.raw_entries(most=most):
            yield decode_entry(entry_id, fields)

    async def _from_redis(self, live: Conversations) -> AsyncIterator[RawEntry]:
        after = FIRST
        while page := await live.entries_after(self.conversation_id, after):
            for entry in page:
                yield entry
            after = split_entry_id(page[-1][0])
            if len(page) < PAGE:
                return

    async def _from_file(self) -> AsyncIterator[RawEntry]:
        assert self.path is not None  # noqa: S101 - a recording is of one or the other
        for line in _lines(self.path):
            if "id" in line:
                yield _entry_of(line)


async def record_from_redis(conversations: Conversations, conversation_id: str) -> Recording:
    """A conversation in Redis.

    Raises:
        ConversationNotFound: nothing is stored of it.
        StreamUnavailable: Redis does not answer.
        NotAStream: its key holds something else.
    """
    try:
        stored = await conversations.look(check_conversation_id(conversation_id))
    except RedisError as error:
        raise explain(error) from error
    if stored is None:
        raise ConversationNotFound(f"Nothing is stored of {conversation_id}: it never began, or has expired.")
    return Recording(stored, conversations)


async def record_from_file(path: Path) -> Recording:
    """A conversation in a file that ``export`` has written.

    Raises:
        DamagedRecording: the file is no recording, or not all of one.
    """
    head: StoredConversation | None = None
    records: list[RunRecord] = []
    entries = 0
    for number, line in enumerate(_lines(path)):
        if number == 0:
            head = _head_of(path, line)
        elif "run" in line and head is not None:
            records.append(RunRecord(head.conversation_id, line["run"], line["state"]))
        entries += "id" in line
    assert head is not None  # noqa: S101 - a file without lines has been refused
    stored = StoredConversation(head.conversation_id, entries, head.keys, tuple(records), head.now)
    return Recording(stored, None, path)


async def lines_of(recording: Recording) -> AsyncIterator[str]:
    """The recording's file, line by line."""
    stored = recording.stored
    yield _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "conversation_id": stored.conversation_id,
            "recorded_at": stored.now,
            "keys": [asdict(key) for key in stored.keys],
        }
    )
    for record in stored.runs:
        yield _line({"run": record.run, "state": record.fields})
    entries = 0
    async for entry_id, fields in recording.raw_entries():
        yield _line({"id": entry_id, **_written(fields)})
        entries += 1
    yield _line({"end": True, "entries": entries})


def _written(fields: list[bytes]) -> dict[str, Any]:
    """An entry's fields: as text where they are, so that people can read them."""
    try:
        texts = [part.decode() for part in fields]
    except UnicodeDecodeError:
        return {"base64": [base64.b64encode(part).decode() for part in fields]}
    if len({*texts[::2]}) < len(texts) // 2:
        # A name that comes twice: Redis takes it.
        return {"base64": [base64.b64encode(part).decode() for part in fields]}
    return {"fields": dict(zip(texts[::2], texts[1::2], strict=True))}


def _entry_of(line: Mapping[str, Any]) -> RawEntry:
    if "base64" in line:
        return line["id"], [base64.b64decode(part) for part in line["base64"]]
    return line["id"], [part.encode() for pair in line["fields"].items() for part in pair]


def _head_of(path: Path, line: Mapping[str, Any]) -> StoredConversation:
    if line.get("format") != FORMAT:
        raise DamagedRecording(f"{path} is no recording: expected what export has written.")
    if line.get("version") != VERSION:
        raise DamagedRecording(f"{path} has version {line.get('version')}: this program reads {VERSION}.")
    try:
        keys = tuple(StoredKey(key["name"], key["kind"], int(key["ttl"])) for key in line["keys"])
        conversation_id = check_conversation_id(str(line["conversation_id"]))
        return StoredConversation(conversation_id, 0, keys, (), int(line["recorded_at"]))
    except (KeyError, TypeError, ValueError, InvalidInput):
        raise DamagedRecording(f"{path}: its first line is damaged.") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, which has to have all of them."""
    number, entries, is_whole = 0, 0, False
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=1):
                line = _parsed(path, number, text)
                is_whole = line.get("end") is True and line.get("entries") == entries
                entries += "id" in line
                yield line
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DamagedRecording(f"{path} can't be read: {reason}.") from None
    if number == 0:
        raise DamagedRecording(f"{path} is empty: expected what export has written.")
    if not is_whole:
        raise DamagedRecording(f"{path} is not all there: its last line is missing. Export it again.")


def _parsed(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        line = None
    is_sound = isinstance(line, dict) and (
        _is_entry(line) if "id" in line else isinstance(line.get("state", {}), dict)
    )
    if not is_sound:
        raise DamagedRecording(f"{path}, line {number}: expected a line that export has written.")
    return dict(line)


def _is_entry(line: Mapping[str, Any]) -> bool:
    try:
        split_entry_id(line["id"])
        _entry_of(line)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def _line(content: Mapping[str, Any]) -> str:
    line = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return line.translate(_LINE_ENDS) + "\n"
