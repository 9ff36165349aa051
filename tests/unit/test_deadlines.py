"""Many deadlines, one timer."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from hosting.deadlines import Deadlines, expire
from tests.service import PATIENCE

SOON = timedelta(seconds=0.05)


async def lasting(deadlines: Deadlines, event: asyncio.Event) -> float:
    """How long it was let wait, in seconds."""
    limit, began = asyncio.timeout(None), time.monotonic()
    try:
        async with limit:
            deadlines.watch(limit)
            await event.wait()
    finally:
        deadlines.leave(limit)
    return time.monotonic() - began


async def test_each_ends_in_its_time() -> None:
    """What began first ends first, what ended is let alone, and later ones are watched as the first."""
    deadlines, never, now = Deadlines(SOON), asyncio.Event(), asyncio.Event()
    now.set()
    for _ in range(2):
        ended: list[int] = []

        async def end(number: int, event: asyncio.Event, ended: list[int] = ended) -> None:
            try:
                await lasting(deadlines, event)
            except TimeoutError:
                ended.append(number)

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(end(number, now if number % 2 else never))
        assert ended == [0, 2, 4]


async def test_nothing_ends_before_its_time() -> None:
    """A deadline is not before the time that was given."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await lasting(Deadlines(SOON), asyncio.Event())
    assert time.monotonic() - began >= SOON.total_seconds() * 0.99


async def test_what_is_ended_early() -> None:
    """What is made to expire ends at once, however often, and is watched no more."""
    deadlines = Deadlines(timedelta(seconds=PATIENCE))
    limit = asyncio.timeout(None)

    async def wait() -> None:
        async with limit:
            deadlines.watch(limit)
            expire(limit)
            expire(limit)
            await asyncio.Event().wait()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await wait()
    assert time.monotonic() - began < PATIENCE
    deadlines.leave(limit)
    deadlines.leave(limit)


def test_one_loop_after_another() -> None:
    """What a loop leaves behind does not keep the next one's from ending."""
    deadlines, event = Deadlines(SOON), asyncio.Event()

    async def left() -> None:
        event.set()
        await lasting(deadlines, event)

    async def ends() -> None:
        async with asyncio.timeout(PATIENCE):
            await lasting(deadlines, asyncio.Event())

    asyncio.run(left())
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(ends())
    assert time.monotonic() - began < PATIENCE
