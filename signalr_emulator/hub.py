"""Who is connected to a hub, as which user, and in which groups; and what each is still to be sent."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from signalr_emulator.hub_protocol import close

#: Connections to all hubs: a browser and some tests need a few.
MAX_CONNECTIONS: Final = 1_000
#: Characters that may wait for one client. One that takes nothing is let go, and comes back.
MAX_WAITING: Final = 4 * 1024 * 1024
#: Groups that users are in. When there are more, the oldest are forgotten.
MAX_MEMBERSHIPS: Final = 10_000


class HubFull(Exception):
    """There are as many connections as one emulator takes."""


class Connection:
    """One client. Its messages wait here until its socket has taken them."""

    def __init__(self, connection_id: str, user: str) -> None:
        self.id = connection_id
        self.user = user
        #: Groups that this connection is in by itself.
        self.groups: set[str] = set()
        self._waiting: deque[str] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._is_closing = False

    def put(self, message: str) -> None:
        """Send a message, later. A client that takes none is told to come back."""
        if self._is_closing:
            return
        if self._size + len(message) > MAX_WAITING:
            self._waiting.clear()
            self.close("The client is too slow.", allow_reconnect=True)
            return
        self._waiting.append(message)
        self._size += len(message)
        self._news.set()

    def close(self, error: str | None = None, *, allow_reconnect: bool) -> None:
        """Say goodbye, after what is waiting."""
        if not self._is_closing:
            self._waiting.append(close(error, allow_reconnect=allow_reconnect))
            self._is_closing = True
            self._news.set()

    async def next(self) -> str | None:
        """The next message; ``None`` after the last one."""
        while not self._waiting:
            if self._is_closing:
                return None
            self._news.clear()
            await self._news.wait()
        message = self._waiting.popleft()
        self._size -= len(message)
        return message


class Hub:
    """One hub's connections and groups."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        #: Until when a user is in a group, by the loop's clock; oldest first.
        self._memberships: OrderedDict[tuple[str, str], float] = OrderedDict()

    def in_group(self, group: str) -> list[Connection]:
        """The connections in a group, by themselves or by their user."""
        return [
            connection
            for connection in self.connections.values()
            if group in connection.groups or self.is_user_in_group(connection.user, group)
        ]

    def of_user(self, user: str) -> list[Connection]:
        """The connections of a user."""
        return [connection for connection in self.connections.values() if user and connection.user == user]

    def add_user(self, user: str, group: str, ttl_seconds: float) -> None:
        """Have a user's connections in a group, those to come too."""
        self._memberships.pop((user, group), None)
        self._memberships[user, group] = _now() + ttl_seconds
        while len(self._memberships) > MAX_MEMBERSHIPS:
            self._memberships.popitem(last=False)

    def remove_user(self, user: str, group: str) -> None:
        """Take a user's connections out of a group."""
        self._memberships.pop((user, group), None)
        for connection in self.of_user(user):
            connection.groups.discard(group)

    def is_user_in_group(self, user: str, group: str) -> bool:
        """Whether a user is in a group now."""
        return bool(user) and self._memberships.get((user, group), 0.0) > _now()


class Hubs:
    """All hubs of the service; one is made when it is first used."""

    def __init__(self) -> None:
        self._hubs: dict[str, Hub] = {}

    def get(self, name: str) -> Hub:
        """A hub. Whoever asks has shown a token that was made out to it."""
        # The service's hubs are the same in lower and upper case.
        return self._hubs.setdefault(name.lower(), Hub())

    def connect(self, hub: Hub, connection: Connection) -> None:
        """Take a connection in.

        Raises:
            HubFull: there is no room.
        """
        if sum(len(each.connections) for each in self._hubs.values()) >= MAX_CONNECTIONS:
            raise HubFull
        hub.connections[connection.id] = connection

    def all(self) -> Iterable[Connection]:
        """All connections."""
        return [connection for hub in self._hubs.values() for connection in hub.connections.values()]


def _now() -> float:
    return asyncio.get_running_loop().time()
