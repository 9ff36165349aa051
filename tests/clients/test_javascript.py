"""The JavaScript client under Node: alone against a server that breaks, and against the real service."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any, Final

import pytest

from soak.cutting_proxy import cutting_proxy
from tests.service import ROOT, connect_http, finished_run, running_service, start_run

FOLDER: Final = ROOT / "tests" / "clients" / "javascript"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


async def run_node(*arguments: str | Path) -> tuple[int | None, str]:
    """Run node to its end; its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        "node", *map(str, arguments), cwd=ROOT, stdout=PIPE, stderr=STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, said.decode(errors="replace")


async def read_text(url: str, conversation_id: str) -> dict[str, Any]:
    """What the client makes of a conversation's latest run."""
    status, said = await run_node(FOLDER / "read.js", url, conversation_id)
    assert status == 0, said
    return dict(json.loads(said))


@pytest.mark.parametrize("suite", sorted(FOLDER.glob("*.test.js")), ids=lambda path: path.name)
async def test_node(suite: Path) -> None:
    """The client's own tests pass under Node."""
    status, said = await run_node("--test", "--test-reporter=spec", suite)
    assert status == 0, said
    assert "✔" in said


async def test_cut_at_random_while_the_run_writes(tmp_path: Path) -> None:
    """Over connections that are cut all the time, the text is the durable answer."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="150") as service:
        chance = random.Random(7)
        async with connect_http(service) as http, cutting_proxy(service.address) as proxy:
            proxy.budget = lambda: chance.randrange(200, 3_000)
            runs = [await start_run(http) for _ in range(3)]
            read = await asyncio.gather(*(read_text(proxy.url, run["conversation_id"]) for run in runs))
            for run, said in zip(runs, read, strict=True):
                status = (await http.get(run["links"]["status"])).json()
                assert status["status"] == "Completed"
                assert said == {"text": status["response"]}
            assert proxy.cuts > 20


async def test_service_killed_in_mid_run(tmp_path: Path) -> None:
    """A service is killed and started again: its unfinished run is interrupted, a finished one is whole."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="20") as service:
        async with connect_http(service) as http, cutting_proxy(service.address) as proxy:
            whole = await finished_run(http, "Tell me a joke")
            run = await start_run(http)
            reading = asyncio.create_task(read_text(proxy.url, run["conversation_id"]))
            async with http.stream("GET", run["links"]["stream"]) as response:
                await anext(response.aiter_raw())
            service.stop(signal.SIGKILL)
            with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="20") as again:
                proxy.address = again.address
                said = await reading
                assert said["error"] == "RunInterruptedError"
                assert said["code"] == "interrupted"
                assert await read_text(proxy.url, whole["conversation_id"]) == {"text": whole["response"]}
