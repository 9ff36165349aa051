"""The socket that the standalone host listens on, which notices clients that vanished."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Final

from streaming.errors import SettingsError

#: Connections that wait to be accepted: a burst of readers that come back after a restart.
BACKLOG: Final = 4_096
#: A connection on which nothing moves is probed after this time, and then this often.
PROBE_AFTER: Final = timedelta(seconds=60)
PROBE_EVERY: Final = timedelta(seconds=15)
#: After so many probes without an answer the client is gone: two minutes after it vanished.
PROBES: Final = 4
#: How long what was sent may go unacknowledged, or a client may refuse to take more. Probes are for silent
#: connections: without this, one with something under way outlives its client by a quarter of an hour.
UNTAKEN_LIMIT: Final = timedelta(minutes=2)


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """Listen with several sockets, among which the system shares out the connections (on Linux evenly).

    Raises:
        SettingsError: the address can't be listened on.
    """
    with listen(host, port) as alone:
        # Nobody else is there: sockets that share would not tell.
        port = alone.getsockname()[1]
    return [listen(host, port, shared=True) for _ in range(count)]


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Listen. Accepted connections inherit the watch over their client.

    Args:
        host: An address of this machine.
        port: 0 takes a free one.
        shared: Whether other sockets may listen there too.

    Raises:
        SettingsError: the address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "not an address of this machine"
        raise SettingsError(
            "HOST and PORT", f"can't listen on {host}:{port} ({reason}). Set PORT to a free one."
        ) from None
    # Accepted connections inherit it. asyncio's own loop, unlike uvloop, sets it only where a socket names
    # its protocol, which this one doesn't; without it an answer in two pieces waits 40 ms for an
    # acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _watch_clients(listener)
    return listener


def _watch_clients(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Systems differ in which of these they have.
    for name, value in (
        ("TCP_KEEPIDLE", int(PROBE_AFTER.total_seconds())),
        ("TCP_KEEPINTVL", int(PROBE_EVERY.total_seconds())),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", int(UNTAKEN_LIMIT / timedelta(milliseconds=1))),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
