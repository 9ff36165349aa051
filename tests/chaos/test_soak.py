"""A short soak: what `make soak` does for minutes."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from soak.client_readers import WAYS, running_clients
from soak.counts import DEFECTS, Counts, table
from tests.service import ROOT, Service

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
    for client in ("Python client", "JavaScript client"):
        is_there = client == "Python client" or shutil.which("node") is not None
        assert (f"– {client}" in output.decode()) == is_there


async def test_a_clients_error_that_is_no_end_of_a_run_is_told(service: Service) -> None:
    """What a client raises where no run has ended is taken for no end that a run may have."""
    counts, run = Counts(), {"conversation_id": "nobody", "correlation_id": "nothing"}
    async with running_clients(service.address, random.Random(1), cut_after=[20_000]) as clients:
        readers = clients.readers(run, WAYS, counts)
        ends = {reading.kind: reading.end for reading in await asyncio.gather(*(r.read() for r in readers))}
    assert all("NotFound" in str(end) and "not_found" in str(end) for end in ends.values()), ends
    assert len(ends) == counts.readers.total() == (2 if clients.node is None else 4)


async def test_without_node_the_result_says_so(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Node is not installed the Python client alone reads, and the result names what is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    run: dict[str, Any] = {}
    async with running_clients(service.address, random.Random(1)) as clients:
        assert [type(reader).__name__ for reader in clients.readers(run, WAYS[:1], Counts())] == [
            "PythonReader"
        ]
        assert "Node is not installed" in clients.names


def test_the_result_counts_each_kind_of_reader() -> None:
    """Reads, resumes, resets and gaps are told by the kind of reader; of text() what can be seen of it."""
    counts = Counts()
    for kind, number in (("raw reader", 3), ("Python client, text()", 2)):
        counts.readers[kind], counts.reconnects[kind], counts.resets[kind] = number, number * 10, number
    told = table(counts, [])
    assert "| reads | 5, 50 resumes |" in told
    assert "| – raw reader | 3, 30 resumes, 3 resets, 0 gaps |" in told
    assert "| – Python client, text() | 2, 20 resumes |" in told
    assert all(f"| **{kind}** | **0** |" in told for kind in DEFECTS)
