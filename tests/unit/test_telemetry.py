"""Counting, what is bounded in it, and settings of where it goes: ``bridges.telemetry``."""

from __future__ import annotations

import builtins
import sys
import threading
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from bridges.telemetry.backends import create_telemetry
from bridges.telemetry.counts import MOST_SERIES, OTHER, Counts
from bridges.telemetry.exporters import span_exporters
from bridges.telemetry.families import Family, Histogram
from bridges.telemetry.redaction import RedactingExporter
from bridges.telemetry.settings import TelemetrySettings
from streaming.environment import Environment
from streaming.errors import SettingsError
from streaming.telemetry import AttemptBegan, AttemptEnded, Telemetry, TerminalWritten

CONNECTION = "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint=http://127.0.0.1:1/"


def family(counts: Counts, name: str) -> Family:
    return next(each for each in counts.families() if each.name == name)


def read(**settings: str) -> TelemetrySettings:
    return TelemetrySettings.read(Environment(settings))


def test_no_count_is_lost_between_threads() -> None:
    """What is counted without a lock is counted exactly, by four threads that change as often as they can."""
    counts, each = Counts(), 20_000
    now = int(time.time() * 1000)

    def count() -> None:
        for _ in range(each):
            counts.appended(2, 0.001)
            counts.buffered(1)
            counts.piece_delivered(now)

    threads = [threading.Thread(target=count) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert family(counts, "appends").numbers == {(): 4 * each}
    assert family(counts, "appended_entries").numbers == {(): 8 * each}
    assert family(counts, "writer_buffer_entries").numbers == {(): 4 * each}
    assert sum(family(counts, "delivery_seconds").histograms[()].counts) == 4 * each


def test_labels_are_bounded() -> None:
    """An agent's name too many is counted with all others: no label fills the memory."""
    counts = Counts()
    for number in range(MOST_SERIES + 50):
        counts.run_accepted(f"agent-{number}")
        counts.attempt_ended(AttemptEnded(f"agent-{number}", "completed", 1.0, 1))
    assert len(family(counts, "runs_accepted").numbers) == MOST_SERIES + 1
    assert family(counts, "runs_accepted").numbers[OTHER,] == 50
    assert len(family(counts, "run_seconds").histograms) == MOST_SERIES + 1


def test_bounds_are_included() -> None:
    """A value that is a bound lies below it, as Prometheus and OpenTelemetry have it."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.add(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 14.0)


def test_a_clock_that_is_behind() -> None:
    """An entry from the future took no time; it never counts as less than none."""
    counts = Counts()
    counts.piece_delivered(int(time.time() * 1000) + 60_000)
    assert family(counts, "delivery_seconds").histograms[()].total == 0


def test_every_hook_is_counted() -> None:
    """Each hook of the interface shows in some metric."""
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "buffered": ((1,), {}),
        "appended": ((1, 0.1), {}),
        "append_retried": ((), {}),
        "writer_refused": (("attempt_fenced",), {}),
        "lease_troubled": (("failed",), {}),
        "run_accepted": (("a",), {}),
        "attempt_began": ((AttemptBegan("a", "c", "r", 1, "", 0.5),), {}),
        "attempt_ended": ((AttemptEnded("a", "completed", 1.0, 3),), {}),
        "terminal_written": ((TerminalWritten("a", "completed", ""),), {}),
        "stream_restored": ((), {}),
        "reader_opened": ((), {"resumed": True}),
        "reader_closed": ((), {"cut_short": False}),
        "gap_told": (("hole",), {}),
        "reset_told": (("stored",), {}),
        "piece_delivered": ((0,), {}),
        "redis_failed": (("append", ConnectionError()), {}),
        "redis_answered": ((), {}),
        "answered": (("run", 202), {}),
    }
    hooks = {name for name in vars(Telemetry) if not name.startswith("_")}
    assert hooks == calls.keys()
    counts = Counts()
    for name, (arguments, named) in calls.items():
        before = str(shown(counts))
        getattr(counts, name)(*arguments, **named)
        assert str(shown(counts)) != before, name


def shown(counts: Counts) -> list[Any]:
    return [
        (each.name, dict(each.numbers), {key: [*one.counts] for key, one in each.histograms.items()})
        for each in counts.families()
    ]


@pytest.mark.parametrize(
    ("settings", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False, False),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION}, True, True),
    ],
)
def test_settings_say_what_is_sent(settings: dict[str, str], *, traces: bool, metrics: bool) -> None:
    """OpenTelemetry's own settings, with the meaning that its specification gives them."""
    read_settings = read(**settings)
    assert (read_settings.sends_traces, read_settings.sends_metrics) == (traces, metrics)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: got 'zipkin', expected otlp or none."),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: got 'grpc', expected http/protobuf (most often port 4318).",
        ),
        ({"OTEL_SDK_DISABLED": "maybe"}, "OTEL_SDK_DISABLED: got 'maybe', expected true or false."),
        (
            {"APPLICATIONINSIGHTS_CONNECTION_STRING": "secret"},
            (
                "APPLICATIONINSIGHTS_CONNECTION_STRING: no InstrumentationKey=…: expected"
                " InstrumentationKey=…;IngestionEndpoint=https://…."
            ),
        ),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, str], expected: str) -> None:
    """The message names the setting and the remedy, and repeats no secret."""
    with pytest.raises(SettingsError) as error:
        read(**settings)
    assert error.value.message == expected


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (TelemetrySettings(otlp_traces=True), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (TelemetrySettings(azure_monitor=CONNECTION), "APPLICATIONINSIGHTS_CONNECTION_STRING"),
    ],
)
def test_a_package_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, settings: TelemetrySettings, named: str
) -> None:
    """What asks for it is refused, and told what to install; where the platform asks, it is let be."""
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith(("opentelemetry.exporter", "azure.monitor")):
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=f"{named}: .*pip install -r requirements-telemetry.txt"):
        span_exporters(settings)
    if settings.azure_monitor:
        assert not create_telemetry(settings, is_platforms=True).telemetry.traces.is_on


def test_spans_lose_what_was_said() -> None:
    """Messages, arguments and results, an exception's words and what a status describes do not leave."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(RedactingExporter(kept)))
    with provider.get_tracer("agent_framework").start_as_current_span("chat") as span:
        span.set_attribute("gen_ai.input.messages", "secret")
        span.set_attribute("gen_ai.tool.call.arguments", "secret")
        span.set_attribute("gen_ai.request.model", "demo")
        span.record_exception(ValueError("secret"))
        span.set_status(StatusCode.ERROR, "secret")
    with provider.get_tracer("durabletask").start_as_current_span("entity:dafx-a:run"):
        pass
    [sent] = kept.get_finished_spans()
    assert "secret" not in sent.to_json()
    assert sent.attributes == {"gen_ai.request.model": "demo"}
    assert [event.attributes for event in sent.events] == [{"exception.type": "ValueError"}]
