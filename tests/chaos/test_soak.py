"""A short soak: what `make soak` does for minutes."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import pytest

from tests.service import ROOT

#: A soak ends some time after its last fault: with the slowest of its runs.
BOUND: Final = 150


@pytest.mark.timeout(BOUND + 10)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 7))])
async def test_a_short_soak_finds_nothing(seed: int) -> None:
    """Conversations under faults lose, double, reorder and hang nothing."""
    # fmt: off
    command = [
        sys.executable, "-m", "soak", "--seconds", "12", "--conversations", "8", "--pause", "2",
        "--words-per-second", "100", "--seed", str(seed),
    ]
    # fmt: on
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(BOUND):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
