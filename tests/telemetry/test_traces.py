"""One trace follows a message through the real service, sent by the real exporter: docs/protocol.md, 5.11."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.service import (
    SLOW,
    TRIP,
    Service,
    connect_http,
    eventually,
    open_events,
    read_events,
    running_service,
    start_run,
    start_service,
    stream_path,
    text_of,
)
from tests.telemetry.collector import Collector, collector

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
CLIENT: Final = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER: Final = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture(scope="module")
def told() -> Iterator[Collector]:
    """Where the service sends to."""
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def service(told: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that traces, and whose framework was told to write messages into its spans."""
    data_dir = tmp_path_factory.mktemp("traced") / "data"
    settings = {**told.settings, "ENABLE_SENSITIVE_DATA": "true", "LOG_FORMAT": "json"}
    with running_service(data_dir, DEMO_MODEL_WORDS_PER_SECOND="1000", **settings) as running:
        yield running


async def post(http: httpx.AsyncClient, traceparent: str, message: str = TRIP) -> httpx.Response:
    headers = {"traceparent": traceparent} if traceparent else {}
    return await http.post("/api/agents/TravelPlanner/run", json={"message": message}, headers=headers)


async def test_one_trace_follows_a_message(told: Collector, service: Service) -> None:
    """The client's trace goes on: request, durable attempt, the framework's model and tools, reader."""
    async with connect_http(service) as http:
        started = await post(http, CLIENT)
        run = started.json()
        events = await read_events(http, run["conversation_id"])
    request = await told.span("POST /api/agents/{agent}/run")
    attempt = await told.span("run TravelPlanner", run=run["correlation_id"])
    reader = await told.span("GET " + stream_path("{conversation_id}"), conversation=run["conversation_id"])
    agent = await told.span("invoke_agent TravelPlanner")
    assert started.headers["traceparent"] == f"00-{TRACE}-{request.id}-01"
    assert (request.trace, request.parent) == (TRACE, "b7ad6b7169203331")
    assert (attempt.trace, attempt.parent, attempt.attributes["agent_stream.attempt"]) == (
        TRACE,
        request.id,
        1,
    )
    assert (reader.trace, reader.parent, reader.links) == (TRACE, request.id, (request.id,))
    assert (agent.trace, agent.parent) == (TRACE, attempt.id)
    assert {span.parent for span in told.named("chat demo")} == {agent.id}
    tools = {span.name for span in told.spans if span.name.startswith("execute_tool")}
    assert tools == {"execute_tool get_weather_forecast", "execute_tool get_local_events"}
    assert {span.trace for span in told.spans} == {TRACE}
    facts = attempt.attributes
    chunks = sum(event.event == "message" for event in events)
    assert (facts["agent_stream.outcome"], facts["agent_stream.chunks"]) == ("completed", chunks)
    assert 0 < facts["agent_stream.appends"] <= facts["agent_stream.entries"]
    assert reader.attributes["agent_stream.outcome"] == "ended"
    assert reader.seconds == pytest.approx(attempt.seconds, abs=1)


async def test_a_log_line_names_the_trace(told: Collector, service: Service) -> None:
    """The line of a run has the id of its trace, so that one is found from the other."""
    async with connect_http(service) as http:
        run = (await post(http, OTHER, "Tell me a joke")).json()
        await read_events(http, run["conversation_id"])
    attempt = await told.span("run TravelPlanner", run=run["correlation_id"])
    line = next(line for line in service.log.splitlines() if run["correlation_id"] in line)
    assert f'"trace": "{attempt.trace}"' in line


async def test_a_reader_with_a_trace_of_its_own(told: Collector, service: Service) -> None:
    """Its request stays in its own trace, and is linked to the run's; it is told whether it was cut."""
    async with connect_http(service) as http:
        run = (await post(http, CLIENT)).json()
        async with open_events(http, run["conversation_id"], headers={"traceparent": OTHER}) as stream:
            await stream.up_to("message")
            assert stream.response.headers["traceparent"].startswith(OTHER[:36])
    name = "GET " + stream_path("{conversation_id}")
    reader = await told.span(name, conversation=run["conversation_id"], outcome="left")
    assert (reader.trace, reader.parent) == (OTHER[3:35], OTHER[36:52])
    attempt = await told.span("run TravelPlanner", run=run["correlation_id"])
    assert reader.links == (attempt.parent,)


@pytest.mark.parametrize("bad", ["", "00-0-0-00", "x" * 3_000, f"00-{'0' * 32}-{'0' * 16}-01"])
async def test_a_traceparent_that_cannot_be_used(told: Collector, service: Service, bad: str) -> None:
    """A new trace begins, and nobody is refused for it."""
    async with connect_http(service) as http:
        started = await post(http, bad, "Tell me a joke")
        assert started.status_code == 202
        trace = started.headers["traceparent"][3:35]
        assert trace not in (TRACE, OTHER[3:35], "0" * 32)
        attempt = await told.span("run TravelPlanner", run=started.json()["correlation_id"])
    assert attempt.trace == trace


async def test_a_cancel_and_its_end_are_in_the_trace(told: Collector, service: Service) -> None:
    """Who looks at a run that stopped sees that somebody asked for it."""
    async with connect_http(service) as http:
        run = (await post(http, CLIENT)).json()
        async with open_events(http, run["conversation_id"]) as stream:
            await stream.up_to("message")
            await http.delete(run["links"]["status"])
            await stream.rest()
    attempt = await told.span("run TravelPlanner", run=run["correlation_id"])
    assert attempt.attributes["agent_stream.outcome"] == "cancelled"
    assert attempt.parent in {span.parent for span in told.named("cancel requested")}


async def test_no_span_holds_what_was_said(told: Collector, service: Service) -> None:
    """Neither prompt nor answer, arguments nor results leave in a span, also if the framework writes them."""
    prompt = "Plan a 2-day trip to Zanzibar"
    async with connect_http(service) as http:
        run = (await post(http, CLIENT, prompt)).json()
        answer = text_of(await read_events(http, run["conversation_id"]))
    await told.span("run TravelPlanner", run=run["correlation_id"])
    assert "Zanzibar" in answer
    assert b"Zanzibar" not in told.received
    assert not [name for span in told.spans for name in span.attributes if name.endswith(".messages")]


@pytest.mark.long
async def test_a_failure_is_an_error_without_words(told: Collector, tmp_path: Path) -> None:
    """A failed run's span is an error and has its code, and no exception's message."""
    told.spans.clear()
    model = {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}
    with running_service(tmp_path / "data", **told.settings, **model) as failing:
        async with connect_http(failing) as http:
            await post(http, CLIENT)
            attempt = await told.span("run TravelPlanner")
            await told.span("invoke_agent TravelPlanner")
    assert attempt.is_error
    assert attempt.attributes["agent_stream.outcome"] == "failed"
    assert attempt.attributes["agent_stream.code"] == "agent_failed"
    assert b"Connection error" not in told.received


async def test_a_process_that_is_killed_in_mid_run(told: Collector, tmp_path: Path) -> None:
    """The trace has that the attempt began, and that another process ended the run as interrupted."""
    told.spans.clear()
    first = start_service(tmp_path / "data", **{**told.settings, "DEMO_MODEL_WORDS_PER_SECOND": SLOW})
    try:
        async with connect_http(first) as http:
            run = (await post(http, CLIENT)).json()
            begun = await told.span("attempt begun", run=run["correlation_id"])
    finally:
        first.stop(signal.SIGKILL)
    with running_service(tmp_path / "data", **told.settings) as second:
        interrupted = await told.span("run interrupted")
        async with connect_http(second) as http:
            events = await read_events(http, run["conversation_id"])
            name = "GET " + stream_path("{conversation_id}")
            reader = await told.span(name, conversation=run["conversation_id"])
    assert events[-1].event == "error"
    assert (begun.trace, interrupted.trace, reader.trace) == (TRACE, TRACE, TRACE)
    assert interrupted.parent == begun.parent
    ended = [span.attributes["agent_stream.run"] for span in told.named("run TravelPlanner")]
    assert run["correlation_id"] not in ended


async def test_metrics_are_sent_too(told: Collector, service: Service) -> None:
    """Counts, gauges and histograms come by OTLP, under the names that Prometheus has, with dots."""
    # Another test's service, just stopped, has left what it counted.
    told.metrics.clear()
    async with connect_http(service) as http:
        run = await start_run(http, "Tell me a joke")
        await read_events(http, run["conversation_id"])

    async def have_come() -> bool:
        # The last is Agent Framework's own.
        ours = {
            f"agent_stream.{name}" for name in ("terminals", "delivery_seconds", "appends", "readers_active")
        }
        return ours | {"gen_ai.client.operation.duration"} <= told.metrics.keys()

    await eventually(have_come, "metrics")
    assert told.metrics["agent_stream.appends"].sum.is_monotonic
    assert told.metrics["agent_stream.readers_active"].WhichOneof("data") == "gauge"
    [point] = told.metrics["agent_stream.append_seconds"].histogram.data_points
    assert point.count == sum(point.bucket_counts) > 0
    assert len(point.explicit_bounds) + 1 == len(point.bucket_counts)


async def test_what_is_left_is_sent_at_the_end(told: Collector, tmp_path: Path) -> None:
    """A service that is stopped sends what it has gathered, before its own intervals are over."""
    told.spans.clear()
    told.metrics.clear()
    with running_service(tmp_path / "data", OTEL_EXPORTER_OTLP_ENDPOINT=told.url) as service:
        async with connect_http(service) as http:
            run = (await post(http, CLIENT, "Tell me a joke")).json()
            await read_events(http, run["conversation_id"])
        service.stop()
    assert told.named("run TravelPlanner")
    assert "agent_stream.terminals" in told.metrics


async def test_a_collector_that_is_away(tmp_path: Path) -> None:
    """Runs go on, the log says it once, and the service stops in its usual time."""
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1/secret-path",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with running_service(tmp_path / "data", **settings) as service:
        async with connect_http(service) as http:
            run = (await post(http, CLIENT, "Tell me a joke")).json()
            assert (await read_events(http, run["conversation_id"]))[-1].event == "done"

            async def is_said() -> bool:
                return "Failed to export" in service.log

            await eventually(is_said, "that spans can't be sent")
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 15
        assert len([line for line in service.log.splitlines() if "ERROR" in line]) <= 2
        assert "secret-path" not in service.log
