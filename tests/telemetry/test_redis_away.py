"""What is said and counted while Redis is away: docs/observability.md."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import httpx

from tests.redis_server import redis_server
from tests.service import connect_http, eventually, read_events, running_service, start_run, text_of

RUNS: Final = 20


async def metric(http: httpx.AsyncClient, name: str) -> float:
    """The sum of a metric's numbers."""
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"agent_stream_{name}"))


async def test_an_outage_is_two_lines(tmp_path: Path) -> None:
    """With twenty runs and readers in progress Redis goes and comes: one line each, and all is counted."""
    with redis_server(tmp_path / "redis", "--appendonly", "yes") as server:
        await server.start()
        settings = {"REDIS_CONNECTION_STRING": server.url, "DEMO_MODEL_WORDS_PER_SECOND": "100"}
        with running_service(tmp_path / "data", **settings) as service:
            async with connect_http(service) as http:
                runs = [await start_run(http, "Plan a 1-day trip to Rome") for _ in range(RUNS)]
                reading = [asyncio.create_task(read_events(http, run["conversation_id"])) for run in runs]

                async def all_go_on() -> bool:
                    return {await metric(http, f"{kind}_active") for kind in ("attempts", "readers")} == {
                        RUNS
                    }

                async def many_have_failed() -> bool:
                    return await metric(http, "append_retries_total") > 5 * RUNS

                await eventually(all_go_on, "all runs go on")
                server.kill()
                await eventually(many_have_failed, "every run has tried again")
                during = {name: await metric(http, name) for name in ("redis_away", "writer_buffer_entries")}
                await server.start()
                texts = {text_of(events) for events in await asyncio.gather(*reading)}
                after = {name: await metric(http, name) for name in ("redis_away", "writer_buffer_entries")}
                failures = await metric(http, "redis_failures_total")
            lines = [line for line in service.log.splitlines() if "redis " in line.lower()]
    assert len(texts) == 1
    assert during["redis_away"] == 1
    assert during["writer_buffer_entries"] > RUNS
    assert after == {"redis_away": 0, "writer_buffer_entries": 0}
    assert failures > 5 * RUNS
    assert [line.partition("WARNING")[2].split(":")[0].strip() for line in lines] == [
        "redis away, retrying",
        "redis back",
    ]
