"""Redis is killed, loses its last second, or hangs, while many write and read: docs/reliability.md."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.redis_load import Load, handler_on, leases_on
from tests.redis_server import redis_server

RUNS: Final = 50
CHUNKS: Final = 120
#: Bytes of the write-ahead log that a lost last second is: some entries of every run.
LAST_SECOND: Final = 400_000


@pytest.mark.parametrize("sync", ["everysec", "always"])
async def test_a_killed_redis_costs_no_entry(tmp_path: Path, sync: str) -> None:
    """Redis is killed under fifty runs and fifty readers and comes back: every entry once, nothing again."""
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", sync) as server:
        await server.start()

        async def kill() -> None:
            server.kill()
            await server.start()

        async with handler_on(server.url) as handler, leases_on(server.url) as leases:
            await Load(handler, leases, runs=RUNS, chunks=CHUNKS).under(kill)


async def test_what_redis_acknowledged_and_lost_is_written_again(tmp_path: Path) -> None:
    """A Redis that comes back without its last entries gets them again, after a reset, from their writers."""
    with redis_server(tmp_path, "--appendonly", "yes") as server:
        await server.start()

        async def lose() -> None:
            server.kill()
            server.lose_the_last(LAST_SECOND)
            await server.start()

        async with handler_on(server.url) as handler, leases_on(server.url) as leases:
            given = await Load(handler, leases, runs=RUNS, chunks=CHUNKS).under(lose)
    resets = [[chunk.type for chunk in chunks].count("reset") for chunks in given.values()]
    assert set(resets) <= {0, 1}
    assert sum(resets) > RUNS / 2, "hardly anything was lost"


async def test_a_frozen_redis_costs_time_only(tmp_path: Path) -> None:
    """Redis hangs for five seconds under fifty runs and fifty readers: every entry once, nothing again."""
    with redis_server(tmp_path) as server:
        await server.start()

        async def freeze() -> None:
            server.signal(signal.SIGSTOP)
            # The time that it hangs is the fault itself, nothing that is waited for.
            await asyncio.sleep(5)
            server.signal(signal.SIGCONT)

        async with handler_on(server.url) as handler, leases_on(server.url) as leases:
            given = await Load(handler, leases, runs=RUNS, chunks=CHUNKS).under(freeze)
    assert {chunk.type for chunks in given.values() for chunk in chunks} == {None}
