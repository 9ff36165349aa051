"""Live text that goes to a client's socket past the iteration: the same events, each once, in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry
from streaming.http.delivery import as_server_sent_events
from streaming.http.limits import TimeLimit
from streaming.http.messages import DirectLine
from streaming.identifiers import keys_of
from streaming.sse import ServerSentEvent, ServerSentEventDecoder
from streaming.store.run_states import Attempt
from streaming.telemetry import Telemetry
from streaming.text_blocks import TextBlock
from tests.contract.reading import COMPLETED, begin, complete_run, text, until

LONG = timedelta(hours=1)
#: The look that follows a subscription may bring the first text, and if it is asked for while the next is
#: appended, that one too. What comes later comes by messages.
FIRST = 2
TYPED = NewEntry(timestamp=1, type="tool_call", data={"name": "f"})


class Client:
    """What one client of a stream has got, and which of it past the iteration."""

    def __init__(self, handler: RedisStreamResponseHandler, can_take: Callable[[], bool]) -> None:
        self._handler = handler
        self._can_take = can_take
        self._decoder = ServerSentEventDecoder()
        self.events: list[ServerSentEvent] = []
        self.written = 0

    def _write(self, piece: bytes) -> bool:
        if not self._can_take():
            return False
        self.written += 1
        self._get(piece)
        return True

    def _get(self, piece: bytes) -> None:
        self.events += self._decoder.feed(piece)

    async def read(self, *, limit: TimeLimit | None = None, follow: bool = False) -> None:
        """Read the conversation to its end."""
        opened = await self._handler.reader.open("c", follow=follow)
        line = DirectLine(self._write)
        async for piece in as_server_sent_events(opened, all_events=False, limit=limit, direct=line):
            self._get(piece)

    async def has(self, count: int) -> bool:
        """Whether so many events have come."""
        return len(self.events) >= count

    async def is_waiting(self) -> bool:
        """Whether all that was heard of has come, and the read waits for more."""
        [stream] = self._handler.reader._follower._streams.values() or [None]
        return stream is not None and bool(stream._waiters)

    async def is_waiting_after(self, newest: str) -> bool:
        """Whether an entry has come, and the read waits for more."""
        [stream] = self._handler.reader._follower._streams.values()
        return stream.tail_text == newest and bool(stream._waiters)


@asynccontextmanager
async def reading(client: Client, *, follow: bool = False) -> AsyncIterator[asyncio.Task[None]]:
    """Read while inside."""
    task = asyncio.create_task(client.read(follow=follow))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def append_live(
    handler: RedisStreamResponseHandler, client: Client, attempt: Attempt, numbers: range
) -> None:
    """Append a text of each number once its reader waits, and wait until it has come."""
    for number in numbers:
        await until(client.is_waiting)
        await handler.runs.append(attempt, number, [text(str(number))])
        await until(lambda number=number: client.has(number + 1))  # type: ignore[misc]


async def first_read(handler: RedisStreamResponseHandler, client: Client, attempt: Attempt) -> int:
    """Append ``FIRST`` texts to a stream that is read, and wait for them. Returns how many were written."""
    await append_live(handler, client, attempt, range(FIRST))
    return client.written


async def as_stored(handler: RedisStreamResponseHandler) -> list[ServerSentEvent]:
    """The same stream, as somebody gets it who comes when all is there."""
    late = Client(handler, lambda: False)
    await late.read()
    assert not late.written
    return late.events


async def test_live_text_is_written_at_once(handler: RedisStreamResponseHandler) -> None:
    """Text that comes while its reader waits goes straight to the socket; the rest by iteration."""
    attempt = await begin(handler, "c", "r")
    client = Client(handler, lambda: True)
    async with reading(client) as task:
        before = await first_read(handler, client, attempt)
        await append_live(handler, client, attempt, range(FIRST, FIRST + 10))
        await handler.runs.append(attempt, FIRST + 10, [COMPLETED])
        await task
    assert client.written - before == 10
    assert client.events == await as_stored(handler)


async def test_text_of_no_registered_run_is_written_at_once(handler: RedisStreamResponseHandler) -> None:
    """What ``write_chunk`` appends comes in the same way."""
    client = Client(handler, lambda: True)
    await handler.write_chunk("c", "0", 0)
    written: list[int] = []
    async with reading(client) as task:
        for number in range(1, FIRST + 11):
            await until(client.is_waiting)
            await handler.write_chunk("c", str(number), number)
            await until(lambda number=number: client.has(number + 1))  # type: ignore[misc]
            written.append(client.written)
        await handler.write_completion("c", FIRST + 11)
        await task
    assert written[-1] - written[FIRST - 1] == 10
    assert client.events == await as_stored(handler)


@pytest.mark.parametrize("seed", range(5))
async def test_a_client_that_can_take_nothing_now_and_then(
    handler: RedisStreamResponseHandler, seed: int
) -> None:
    """Whatever is refused, and whatever kinds of entries come between: each event comes once, in order."""
    chance = random.Random(seed)
    attempt = await begin(handler, "c", "r")
    client = Client(handler, lambda: chance.random() < 0.7)
    sequence = FIRST
    async with reading(client) as task:
        await first_read(handler, client, attempt)
        for number in range(60):
            kinds = [text(f"{number}\n"), text(""), TYPED, text("é\r\n")]
            batch = chance.choices(kinds, weights=[20, 1, 2, 3], k=chance.choice([1, 1, 1, 2, 5]))
            appended = await handler.runs.append(attempt, sequence, batch)
            sequence += len(batch)
            if chance.random() < 0.5:
                await until(lambda newest=appended.entry_ids[-1]: client.is_waiting_after(newest))  # type: ignore[misc]
        await handler.runs.append(attempt, sequence, [COMPLETED])
        await task
    assert client.written
    assert client.events == await as_stored(handler)


async def test_a_second_attempt_and_a_second_run(handler: RedisStreamResponseHandler) -> None:
    """A run that is taken over begins again after a reset, and a later run follows, whatever is written."""
    client = Client(handler, lambda: True)
    first = await begin(handler, "c", "r", "first")
    async with reading(client, follow=True):
        for number in range(3):
            await handler.runs.append(first, number, [text(f"first {number}")])
            await until(client.is_waiting)
        second = await begin(handler, "c", "r", "second")
        for number in range(3):
            await handler.runs.append(second, number + 1, [text(f"second {number}")])
            await until(client.is_waiting)
        await handler.runs.append(second, 4, [COMPLETED])
        await complete_run(handler, "c", "s", "later")
        await until(lambda: client.has(10))
    said = [event.data if event.event == "message" else event.event for event in client.events]
    texts = [f"first {number}" for number in range(3)], [f"second {number}" for number in range(3)]
    assert said == [*texts[0], "reset", *texts[1], "done", "later", "done"]


async def test_a_write_that_breaks(handler: RedisStreamResponseHandler) -> None:
    """A host's write that raises loses nothing: the piece comes by iteration."""

    def breaks() -> bool:
        raise OSError

    attempt = await begin(handler, "c", "r")
    client = Client(handler, breaks)
    async with reading(client) as task:
        for number in range(3):
            await until(client.is_waiting)
            await handler.runs.append(attempt, number, [text(str(number))])
        await handler.runs.append(attempt, 3, [COMPLETED])
        await task
    assert client.events == await as_stored(handler)


async def test_the_time_limit_holds_for_what_is_written(handler: RedisStreamResponseHandler) -> None:
    """A response that has lasted long enough ends at the next chunk, which still comes, by iteration."""
    attempt = await begin(handler, "c", "r")
    limit = TimeLimit(LONG, LONG)
    client = Client(handler, lambda: True)
    task = asyncio.create_task(client.read(limit=limit))
    before = await first_read(handler, client, attempt)
    await until(client.is_waiting)
    await handler.runs.append(attempt, FIRST, [text("2")])
    await until(lambda: client.has(FIRST + 1))
    limit._end = 0.0
    await until(client.is_waiting)
    await handler.runs.append(attempt, FIRST + 1, [text("3")])
    async with asyncio.timeout(5):
        await task
    assert [event.data for event in client.events] == ["0", "1", "2", "3"]
    assert client.written - before == 1


async def test_what_is_written_counts(
    handler: RedisStreamResponseHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telemetry hears of each piece, also of those that no task sent."""
    told: list[int] = []
    monkeypatch.setattr(Telemetry, "piece_delivered", lambda _self, stored: told.append(stored))
    attempt = await begin(handler, "c", "r")
    client = Client(handler, lambda: True)
    async with reading(client) as task:
        before = await first_read(handler, client, attempt)
        await append_live(handler, client, attempt, range(FIRST, FIRST + 5))
        await handler.runs.append(attempt, FIRST + 5, [COMPLETED])
        await task
    assert client.written - before == 5
    ids = [int(event.id.partition("-")[0]) for event in client.events]
    # The last piece is given when the read has ended already.
    assert told[: FIRST + 5] == ids[: FIRST + 5]


async def test_a_reader_that_leaves_is_given_nothing_more(handler: RedisStreamResponseHandler) -> None:
    """From the moment that its wait is called off, nothing is written to it."""
    taken: list[TextBlock] = []
    attempt = await begin(handler, "c", "r")
    client = Client(handler, lambda: True)
    async with reading(client):
        await until(client.is_waiting)
        [stream] = handler.reader._follower._streams.values()

        def take(block: TextBlock, _now: float) -> bool:
            taken.append(block)
            return True

        stream.wait(60.0, take).cancel()
        await handler.runs.append(attempt, 0, [text("0")])
        await until(lambda: client.has(1))
    assert taken == []


async def test_a_hole_is_told_of(handler: RedisStreamResponseHandler) -> None:
    """Live text that does not go on where the last ended is not written as if it did."""
    attempt = await begin(handler, "c", "r")
    client = Client(handler, lambda: True)
    async with reading(client):
        await append_live(handler, client, attempt, range(2))
        # As after a failover that lost what was between.
        before, fields = client.events[-1].id, {"text": "5", "sequence": "5", "timestamp": "1", "run": "r"}
        added = await handler._redis.xadd(keys_of("c").stream, cast("Any", fields))
        entry_id = cast("bytes", added).decode()
        flat = [part for field in fields.items() for part in field]
        await handler._redis.publish(keys_of("c").channel, json.dumps([before, entry_id, flat]))
        await until(lambda: client.has(4))
    assert [event.event for event in client.events] == ["message", "message", "gap", "message"]
