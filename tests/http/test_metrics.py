"""What Prometheus fetches: docs/protocol.md, section 5.11."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service import (
    Service,
    eventually,
    finished_run,
    open_events,
    read_events,
    running_service,
    start_run,
)

PREFIX = "agent_stream_"


async def numbers(http: httpx.AsyncClient, path: str = "/api/metrics") -> dict[str, float]:
    """Our metrics, each by its name and labels."""
    response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        f"{sample.name.removeprefix(PREFIX)}{sorted(sample.labels.values()) or ''}": sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }


async def test_a_run_and_its_readers_are_counted(http: httpx.AsyncClient) -> None:
    """One run, one reader from the start and one that resumes: each shows in exactly its numbers."""
    before = await numbers(http)
    run = await start_run(http)
    events = await read_events(http, run["conversation_id"])
    await read_events(http, run["conversation_id"], {"cursor": events[10].id})
    after: dict[str, float] = {}

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    async def is_quiet() -> bool:
        # An attempt ends a moment after its stream, and readers of other tests are perhaps just leaving.
        after.update(await numbers(http))
        active = after["attempts_active['TravelPlanner']"] + after["readers_active"]
        return not active and grown("attempts_ended_total['TravelPlanner', 'completed']") == 1

    await eventually(is_quiet, "the run and its readers have ended")
    assert grown("runs_accepted_total['TravelPlanner']") == 1
    assert grown("attempts_total['TravelPlanner', 'first']") == 1
    assert grown("terminals_total['', 'TravelPlanner', 'completed']") == 1
    assert grown("run_seconds_count['TravelPlanner']") == 1
    assert grown("readers_opened_total['new']") == grown("readers_opened_total['resumed']") == 1
    assert grown("http_answers_total['202', 'run']") == 1
    assert grown("http_answers_total['200', 'stream']") == 2
    assert grown("appended_entries_total") > grown("appends_total") > 0
    assert grown("append_seconds_count") == grown("appends_total")
    assert after["writer_buffer_entries"] == after["redis_away"] == 0


async def test_what_is_in_progress_is_counted(slow_http: httpx.AsyncClient) -> None:
    """A run and a reader that go on show as such; what is delivered live is timed."""
    run = await start_run(slow_http)
    async with open_events(slow_http, run["conversation_id"]) as stream:
        await stream.up_to("message")
        await stream.up_to("message")
        during = await numbers(slow_http)
        await slow_http.delete(run["links"]["status"])
        await stream.rest()
    assert during["attempts_active['TravelPlanner']"] >= 1
    assert during["readers_active"] >= 1
    assert during["delivery_seconds_count"] >= 1
    assert during["delivery_seconds_sum"] < during["delivery_seconds_count"]


async def test_openmetrics_for_who_asks(http: httpx.AsyncClient) -> None:
    """A scraper that asks for OpenMetrics gets it."""
    response = await http.get(
        "/api/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


@pytest.mark.standalone
async def test_the_standard_path(http: httpx.AsyncClient) -> None:
    """The standalone host answers where scrapers look by default."""
    assert (await numbers(http, "/metrics")).keys() == (await numbers(http)).keys()


async def test_no_id_is_a_label(http: httpx.AsyncClient) -> None:
    """Neither conversations nor runs, nor what was said, are in the metrics."""
    run = await finished_run(http, "Plan a 1-day trip to Zanzibar")
    text = (await http.get("/api/metrics")).text
    assert run["conversation_id"] not in text
    assert run["correlation_id"] not in text
    assert "Zanzibar" not in text


@pytest.mark.standalone
async def test_metrics_need_a_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where keys are set metrics need one, unless a setting opens them."""
    key = "a-key-that-opens-everything"

    def statuses(service: Service) -> list[int]:
        with httpx.Client(base_url=service.url, trust_env=False) as http:
            asked = [http.get("/metrics"), http.get("/metrics", headers={"x-functions-key": key})]
            return [answer.status_code for answer in asked]

    with running_service(tmp_path_factory.mktemp("closed") / "data", API_KEYS=key) as service:
        assert statuses(service) == [401, 200]
    open_to_all = {"API_KEYS": key, "METRICS_ANONYMOUS": "true"}
    with running_service(tmp_path_factory.mktemp("open") / "data", **open_to_all) as service:
        assert statuses(service) == [200, 200]
