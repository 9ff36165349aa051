"""The project's own clients as readers, over a line that is cut at random.

Both are checked for what the raw reader is checked for. An error of theirs is right only where it is how the
run ended.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from clients import ClientError, Patience, Reconnect, RunFailed, StreamClient, StreamEvent, Text
from soak.counts import Counts
from soak.cutting_proxy import CuttingProxy, cutting_proxy
from soak.node import Node, running_node
from soak.reader import Reading, RunReader
from streaming.sse import ServerSentEvent

#: The two ways to read with a client.
WAYS: Final = ("text()", "events")
#: A connection is cut after at most one of so many bytes. The last two are far more than any event has, also
#: one with a whole answer that was rebuilt: every reader gets on.
CUT_AFTER: Final = (500, 3_000, 20_000, 60_000)
#: How many times shorter than in a page the JavaScript client's pauses are: the raw reader's are as short.
HASTE: Final = 5
#: The pauses of the Python client are no longer than this, for the same reason.
LONGEST_PAUSE: Final = timedelta(milliseconds=200)
#: The JavaScript client's errors that are how a run ended.
_ENDS: Final = ("RunFailedError", "RunInterruptedError", "StreamLostError")


class PythonReader:
    """Reads one run with the Python client."""

    def __init__(self, clients: Clients, run: dict[str, Any], way: str, counts: Counts) -> None:
        self._clients = clients
        self._run = run
        self._way = way
        self._counts = counts
        self.reading = Reading(kind=f"Python client, {way}")

    async def read(self) -> Reading:
        """Read to the end of the run."""
        reading = self.reading
        self._counts.readers[reading.kind] += 1
        try:
            await (self._take_events() if self._way == "events" else self._take_text())
        except RunFailed as error:
            reading.end = error.code
            reading.text = reading.text or error.text
        except ClientError as error:
            reading.end = f"{type(error).__name__}, {error.code}: {error}"
        resumes = self._clients.resumes.pop(asyncio.current_task(), 0)
        reading.connections = resumes + 1
        self._counts.reconnects[reading.kind] += resumes
        return reading

    async def _take_text(self) -> None:
        client, run = self._clients.python, self._run
        self.reading.text = await client.text(run["conversation_id"], run=run["correlation_id"])
        self.reading.end = "done"

    async def _take_events(self) -> None:
        client, run = self._clients.python, self._run
        async with aclosing(client.stream(run["conversation_id"], run=run["correlation_id"])) as events:
            async for event in events:
                self.reading.take(_as_sent(event), self._counts)


def _as_sent(event: StreamEvent) -> ServerSentEvent:
    name = "message" if isinstance(event, Text) else event.kind
    return ServerSentEvent(event.text if isinstance(event, Text) else "", name, event.cursor or "")


class JavaScriptReader:
    """Reads one run with the JavaScript client."""

    def __init__(self, node: Node, run: dict[str, Any], way: str, counts: Counts) -> None:
        self._node = node
        self._run = run
        self._way = way
        self._counts = counts
        self.reading = Reading(kind=f"JavaScript client, {way}")

    async def read(self) -> Reading:
        """Read to the end of the run.

        Raises:
            NodeEnded: there is no Node any more.
        """
        reading = self.reading
        self._counts.readers[reading.kind] += 1
        told = await self._node.read(self._run["conversation_id"], self._run["correlation_id"], self._way)
        reading.connections = told["connections"]
        self._counts.reconnects[reading.kind] += told["connections"] - 1
        for event in told["events"]:
            reading.take(ServerSentEvent(event["data"], event["type"], event["id"]), self._counts)
        if self._way == "text()":
            reading.text, reading.end = told.get("text", ""), "done"
        if error := told.get("error"):
            is_end = error["name"] in _ENDS
            reading.end = error["code"] if is_end else "{name}, {code}: {message}".format(**error)
        return reading


@dataclass(slots=True)
class Clients:
    """Both clients, behind the line that is cut."""

    python: StreamClient
    #: ``None``: Node is not installed.
    node: Node | None
    proxy: CuttingProxy
    #: How often each task's reader came back.
    resumes: Counter[asyncio.Task[Any] | None]

    @property
    def names(self) -> str:
        """Which there are, for the result."""
        if self.node is None:
            return "one with the Python client, none with the JavaScript client: Node is not installed"
        return "one with the Python client, one with the JavaScript client"

    def readers(self, run: dict[str, Any], ways: Iterable[str], counts: Counts) -> list[RunReader]:
        """Readers of a run: one with each client for each way, of ``WAYS``."""
        readers: list[RunReader] = []
        for way in ways:
            readers.append(PythonReader(self, run, way, counts))
            if self.node is not None:
                readers.append(JavaScriptReader(self.node, run, way, counts))
        return readers


@asynccontextmanager
async def running_clients(
    address: tuple[str, int],
    chance: random.Random,
    *,
    cut_after: Sequence[int] = CUT_AFTER,
    haste: int = HASTE,
) -> AsyncIterator[Clients]:
    """Both clients of the service at an address, whose connections are cut at random."""
    resumes: Counter[asyncio.Task[Any] | None] = Counter()

    def count(_reconnect: Reconnect) -> None:
        resumes[asyncio.current_task()] += 1

    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(cutting_proxy(address))
        proxy.budget = lambda: chance.randint(1, chance.choice(cut_after))
        patience = Patience(longest_delay=LONGEST_PAUSE)
        client = StreamClient(proxy.url, patience=patience, on_reconnect=count)
        python = await stack.enter_async_context(client)
        node = await stack.enter_async_context(running_node(proxy.url, haste=haste))
        yield Clients(python, node, proxy, resumes)
