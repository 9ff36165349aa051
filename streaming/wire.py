"""Takes what a driver's connection receives, as it comes: the one place that reaches below redis-py.

For each reply the driver wakes a task through a stream's reader, timers and retries, which takes longer than
all that is done with most replies. Opening a connection, signing in and TLS stay the driver's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError


class Tap(asyncio.Protocol):
    """Stands in for the driver's protocol on a connection."""

    def __init__(
        self,
        parser: hiredis.Reader,
        transport: asyncio.Transport,
        on_replies: Callable[[list[Any]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._parser = parser
        self._transport = transport
        # What others write over this connection waits for the driver's.
        self._drivers = cast("asyncio.Protocol", transport.get_protocol())
        self._on_replies = on_replies
        self._on_lost = on_lost
        #: Nothing more comes.
        self.is_lost = False

    def write(self, packed: bytes) -> None:
        """Send, some time soon. The transport keeps what is not sent yet, so the caller has to bound it."""
        if not self._transport.is_closing():
            self._transport.write(packed)

    def data_received(self, data: bytes) -> None:
        """Give what is whole."""
        try:
            self._parser.feed(data)
            replies = list(_parsed(self._parser))
        except (RedisError, hiredis.HiredisError):
            # What is no reply leaves nothing that could be made sense of.
            self._transport.abort()
        else:
            self._on_replies(replies)

    def eof_received(self) -> bool:
        """Redis has closed its side: nothing more comes. The driver's would keep the other side open."""
        self._drivers.eof_received()
        self._lose()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell both."""
        self._drivers.connection_lost(exc)
        self._lose()

    def _lose(self) -> None:
        self.is_lost = True
        self._on_lost()

    def pause_writing(self) -> None:
        """For what others write over this connection."""
        self._drivers.pause_writing()

    def resume_writing(self) -> None:
        """For what others write over this connection."""
        self._drivers.resume_writing()

    def remove(self) -> None:
        """Let the driver read again, from where this one ends."""
        self._transport.set_protocol(self._drivers)


def can_be_tapped(connection: AbstractConnection) -> bool:
    """Whether there is a wire (a stand-in for Redis has none), and nothing of it is read halfway."""
    return _parser_of(connection) is not None and _transport_of(connection) is not None


@contextmanager
def tapped(
    connection: AbstractConnection, on_replies: Callable[[list[Any]], None], on_lost: Callable[[], None]
) -> Iterator[Tap]:
    """Take what a connection receives, while nobody else does.

    Args:
        connection: One that ``can_be_tapped``, and has nothing to read.
        on_replies: Given replies in their order, errors that Redis answered among them.
        on_lost: Called once nothing more can come.
    """
    parser, transport = _parser_of(connection), _transport_of(connection)
    if parser is None or transport is None:
        raise RedisConnectionError("The connection is closed.")
    tap = Tap(parser, transport, on_replies, on_lost)
    transport.set_protocol(tap)
    # Where the driver decodes, one reply that is no text would break the connection for all who share it.
    parser.set_encoding(None)
    try:
        yield tap
    finally:
        encoder = connection.encoder
        if encoder.decode_responses:
            parser.set_encoding(encoder.encoding, encoder.encoding_errors)
        tap.remove()


async def next_replies(connection: AbstractConnection) -> list[Any]:
    """Wait for what comes next on a subscription's connection, and take all that came with it.

    Raises:
        RedisError: the connection is lost, or Redis refused something.
    """
    # Without ``push_request`` the driver keeps messages to itself where it speaks RESP3.
    replies = [await connection.read_response(timeout=math.inf, disconnect_on_error=False, push_request=True)]
    parser = _parser_of(connection)
    if parser is not None:
        replies += _parsed(parser)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


def _transport_of(connection: AbstractConnection) -> asyncio.Transport | None:
    return cast("asyncio.Transport | None", getattr(getattr(connection, "_writer", None), "transport", None))


def _parser_of(connection: AbstractConnection) -> hiredis.Reader | None:
    parser = getattr(getattr(connection, "_parser", None), "_reader", None)
    return parser if isinstance(parser, hiredis.Reader) else None


def _parsed(parser: hiredis.Reader) -> Iterator[Any]:
    """What the parser has whole. What Redis sends unasked, over RESP3, is among it."""
    while parser.has_data():
        reply = parser.gets()
        if type(reply) is object:
            # The driver's word for a reply that is not all there yet.
            return
        yield reply
