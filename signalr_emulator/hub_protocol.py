"""The SignalR hub protocol as JSON. Pure.

Source: https://github.com/dotnet/aspnetcore/blob/main/src/SignalR/docs/specs/HubProtocol.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

#: Ends each message.
SEPARATOR: Final = "\x1e"
_INVOCATION: Final = 1
_PING: Final = 6
_CLOSE: Final = 7
#: The newest version of the protocol that clients may ask for; what is new in 2 is not used here.
_NEWEST_VERSION: Final = 2
_SENDING: Final = (1, 4)


class HubProtocolError(Exception):
    """What a client sent is no message of the protocol, or none that a serverless hub takes."""


def _encode(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")) + SEPARATOR


PING: Final = _encode({"type": _PING})
HANDSHAKE_DONE: Final = _encode({})


def invocation(target: str, arguments: Sequence[Any]) -> str:
    """A call on a client."""
    return _encode({"type": _INVOCATION, "target": target, "arguments": list(arguments)})


def close(error: str | None = None, *, allow_reconnect: bool) -> str:
    """The last message of a connection."""
    said = {"error": error} if error is not None else {}
    return _encode({"type": _CLOSE, **said, "allowReconnect": allow_reconnect})


def handshake_refused(error: str) -> str:
    """The answer to a handshake that can't be."""
    return _encode({"error": error})


class Incoming:
    """Takes what a client sends to pieces. A message may come in several frames, a frame have several."""

    def __init__(self, limit: int) -> None:
        """Take messages of up to ``limit`` characters."""
        self._limit = limit
        self._rest = ""

    def feed(self, text: str) -> list[dict[str, Any]]:
        """The messages that are whole now.

        Raises:
            HubProtocolError: one is too long, or not a JSON object.
        """
        *whole, self._rest = (self._rest + text).split(SEPARATOR)
        if len(self._rest) > self._limit or any(len(message) > self._limit for message in whole):
            raise HubProtocolError("A message is too long.")
        return [_decode(message) for message in whole]


def _decode(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise HubProtocolError("A message is not a JSON object.")
    return message


def check_handshake(message: dict[str, Any]) -> None:
    """Look at a client's first message.

    Raises:
        HubProtocolError: it asks for what is not spoken here.
    """
    if message.get("protocol") != "json":
        raise HubProtocolError("The protocol is not supported: this emulator speaks json.")
    version = message.get("version")
    if not isinstance(version, int) or not 1 <= version <= _NEWEST_VERSION:
        raise HubProtocolError("The version of the protocol is not supported.")


def check_message(message: dict[str, Any]) -> None:
    """Look at a later message: clients of a serverless hub have nothing to say but that they are there.

    Raises:
        HubProtocolError: it calls the hub, which nobody would answer.
    """
    if message.get("type") in _SENDING:
        raise HubProtocolError("A serverless hub takes no calls: nobody is there to answer them.")
