"""The service on each topology: a run, its stream, a resume, and a failover in the middle of it."""

from __future__ import annotations

from pathlib import Path

from streaming.identifiers import keys_of
from tests.service import (
    connect_http,
    eventually,
    finished_run,
    open_events,
    read_events,
    running_service,
    start_run,
    text_of,
)
from tests.topologies.servers import Cluster, SentinelGroup

#: Words per second: slow enough for the fault to meet a run in progress, fast enough for a short test.
PACE = "150"


async def test_a_run_is_streamed_and_resumed(topology: Cluster | SentinelGroup, tmp_path: Path) -> None:
    """REDIS_CONNECTION_STRING names a cluster or sentinels, and everything works as with one server."""
    with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=topology.url) as service:
        async with connect_http(service) as http:
            run = await finished_run(http)
            conversation = str(run["conversation_id"])
            events = await read_events(http, conversation)
            assert text_of(events) == run["response"] != ""
            half = len(events) // 2
            rest = await read_events(http, conversation, headers={"last-event-id": events[half - 1].id})
            assert rest == events[half:]
            assert (await http.get("/api/health")).status_code == 200


async def test_a_finished_run_that_a_failover_loses_is_rebuilt(
    topology: Cluster | SentinelGroup, tmp_path: Path
) -> None:
    """When the new master never got the run, not even its end, the durable answer is what its readers get."""
    with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=topology.url) as service:
        async with connect_http(service) as http:
            await topology.cut_replicas(keys_of("lost").stream)
            run = await finished_run(http, conversation_id="lost")
            await topology.lose_master(keys_of("lost").stream)

            async def rebuilt() -> bool:
                stream = await http.get("/api/agent/stream/lost", headers={"accept": "text/plain"})
                return stream.status_code == 200 and stream.text == run["response"]

            await eventually(rebuilt, "the stream has the answer again")


async def test_a_failover_in_mid_run_is_no_loss_for_a_browser(
    topology: Cluster | SentinelGroup, tmp_path: Path
) -> None:
    """The master dies under a streamed run: its reader, which then resumes, has the answer, once."""
    settings = {"REDIS_CONNECTION_STRING": topology.url, "DEMO_MODEL_WORDS_PER_SECOND": PACE}
    with running_service(tmp_path / "data", **settings) as service:
        async with connect_http(service) as http:
            started = await start_run(http)
            conversation = str(started["conversation_id"])
            async with open_events(http, conversation) as stream:
                events = [await stream.next() for _ in range(20)]
                await topology.lose_master(keys_of(conversation).stream)
                events += [await stream.next() for _ in range(20)]

            async def completed() -> bool:
                status = await http.get(f"/api/agents/TravelPlanner/run/{conversation}")
                return status.status_code == 200 and status.json()["status"] == "Completed"

            await eventually(completed, "the run has completed")
            events += await read_events(http, conversation, headers={"last-event-id": events[-1].id})
            status = (await http.get(f"/api/agents/TravelPlanner/run/{conversation}")).json()
            resets = [place for place, event in enumerate(events) if event.event == "reset"]
            assert text_of(events[resets[-1] :] if resets else events) == status["response"]
            assert events[-1].event == "done"
            ids = [event.id for event in events if event.event != "gap"]
            assert len(ids) == len(set(ids))
