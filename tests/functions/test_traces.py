"""A trace goes on in the worker that takes over a run: docs/protocol.md, 5.11."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tests.functions.conftest import Deploy
from tests.functions.test_worker_lost import UNHURRIED, read_to_the_end, status_of
from tests.service import eventually
from tests.telemetry.collector import collector

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"


async def test_a_run_that_two_workers_executed(deploy: Deploy) -> None:
    """One trace has the request, both attempts, of which the first never ended, the agent and the reader."""
    with collector() as told:
        settings: dict[str, Any] = told.settings
        async with deploy(DEMO_MODEL_WORDS_PER_SECOND=UNHURRIED, **settings) as app:
            headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            body = {"message": "Plan a 1-day trip to Rome"}
            answer = await app.http.post("/api/agents/TravelPlanner/run", json=body, headers=headers)
            run = answer.json()
            reading = asyncio.create_task(read_to_the_end(app.http, run["conversation_id"]))

            async def has_begun() -> bool:
                return int((await status_of(app.http, run))["entries"]) > 5

            await eventually(has_begun, "the answer has begun")
            begun = await told.span("attempt begun", run=run["correlation_id"], attempt=1)
            await (await app.host.worker()).kill()
            await reading
            attempt = await told.span("run TravelPlanner", run=run["correlation_id"])
            reader = await told.span("GET /api/agent/stream/{conversation_id}", outcome="ended")
            agent = await told.span("invoke_agent TravelPlanner")
    assert answer.headers["traceparent"][3:35] == TRACE
    assert (attempt.attributes["agent_stream.attempt"], attempt.parent) == (2, begun.parent)
    assert {span.trace for span in (begun, attempt, reader, agent)} == {TRACE}
    assert agent.parent == attempt.id
