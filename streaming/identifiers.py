"""Names in the stored format: conversation ids, run ids, entry ids (cursors) and Redis keys."""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

import msgspec

from streaming.errors import InvalidCursor, InvalidInput

#: Characters the task hub and a Redis Cluster both take; ``@`` and ``{}`` have a meaning to them.
#: Dots alone are left out: a URL's path takes them for folders.
_ID_PATTERN: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,128}")
_STREAM_PREFIX: Final = "agent-stream:"
_ENTRY_ID_PATTERN: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_UINT64_MAX: Final = 2**64 - 1
#: Bytes of randomness in an id that we make: not guessable (128 bits).
_RANDOM_BYTES: Final = 16


class EntryId(msgspec.Struct, frozen=True, order=True, gc=False):
    """A Redis stream entry id, ordered as Redis orders it.

    Each chunk has one, and the garbage collector need not know.
    Source: https://redis.io/docs/latest/develop/data-types/streams/#entry-ids
    """

    milliseconds: int
    counter: int

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.counter}"


#: Before every entry.
FIRST: Final = EntryId(0, 0)


def parse_entry_id(text: str) -> EntryId:
    """Read ``<milliseconds>-<counter>`` (or ``<milliseconds>`` alone, which means counter 0).

    Raises:
        InvalidCursor: the text is not an entry id.
    """
    match = _ENTRY_ID_PATTERN.fullmatch(text)
    if match:
        parsed = EntryId(int(match[1]), int(match[2] or 0))
        if parsed.milliseconds <= _UINT64_MAX and parsed.counter <= _UINT64_MAX:
            return parsed
    raise InvalidCursor("cursor", text, "an entry id such as 1718000000000-0, or 0, or $")


def split_entry_id(text: str | bytes) -> EntryId:
    """Read an entry id that Redis gave: as ``parse_entry_id``, without its checks.

    Raises:
        ValueError: it is none.
    """
    milliseconds, counter = text.split("-" if isinstance(text, str) else b"-")  # type: ignore[arg-type]  # as it is
    return EntryId(int(milliseconds), int(counter))


def check_conversation_id(value: str) -> str:
    """Return ``value`` when it is a valid conversation id.

    Raises:
        InvalidInput: it is not.
    """
    return _check_id("conversation_id", value)


def check_run_id(value: str) -> str:
    """Return ``value`` when it is a valid run id (the framework's ``correlation_id``).

    Raises:
        InvalidInput: it is not.
    """
    return _check_id("run", value)


def _check_id(field: str, value: str) -> str:
    if not _ID_PATTERN.fullmatch(value):
        raise InvalidInput(field, value, "1 to 128 characters of A-Z a-z 0-9 . _ - (not . or .. alone)")
    return value


def new_id() -> str:
    """Make an id that can't be guessed."""
    return secrets.token_hex(_RANDOM_BYTES)


class Keys(NamedTuple):
    """Redis keys and the wake-up channel of one conversation.

    The companions carry the stream's key as their hash tag, so that a cluster keeps all in one slot.
    """

    stream: str
    runs: str
    channel: str

    def run(self, run_id: str) -> str:
        """The key of one run's state."""
        return f"{{{self.stream}}}:run:{run_id}"

    def agent(self, entity: str) -> str:
        """The key of what an agent remembers of the conversation, by the name of the agent's entity."""
        return f"{{{self.stream}}}:agent:{entity}"


def keys_of(conversation_id: str) -> Keys:
    """The keys of a conversation."""
    stream = f"{_STREAM_PREFIX}{conversation_id}"
    tag = f"{{{stream}}}"
    return Keys(stream=stream, runs=f"{tag}:runs", channel=f"{tag}:wake")


def conversation_of(key: str) -> str | None:
    """The conversation that a Redis key belongs to; ``None``: none of ours."""
    name = key[1:].partition("}")[0] if key.startswith("{") else key
    conversation_id = name.removeprefix(_STREAM_PREFIX)
    is_ours = name.startswith(_STREAM_PREFIX) and _ID_PATTERN.fullmatch(conversation_id) is not None
    return conversation_id if is_ours else None
