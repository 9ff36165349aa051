"""What a service keeps in memory of runs that have ended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.service import connect_http, finished_run, running_service

WARM_UP: Final = 300
RUNS: Final = 700
AT_ONCE: Final = 10
#: More than the garbage that is there at any time, and a half of what was kept of so many runs when nobody
#: looked for it.
LIMIT_MB: Final = 60


async def run_many(http: httpx.AsyncClient, name: str, count: int) -> None:
    """Runs in conversations of their own."""
    places = asyncio.Semaphore(AT_ONCE)

    async def run(number: int) -> None:
        async with places:
            await finished_run(http, conversation_id=f"{name}-{number}")

    await asyncio.gather(*(run(number) for number in range(count)))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="processes are measured by /proc: Linux-only")
async def test_memory_does_not_grow_with_each_run(tmp_path: Path) -> None:
    """Hundreds of runs after the first hundreds leave next to nothing."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="100000") as service:
        async with connect_http(service) as http:
            await run_many(http, "first", WARM_UP)
            before = service.memory
            await run_many(http, "then", RUNS)
            grown = service.memory - before
    assert grown < LIMIT_MB * 1_048_576
