"""Telemetry as a composition root takes it: the hooks with their backends, and the routes of Prometheus."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from bridges.telemetry.counts import Counts
from bridges.telemetry.exporters import metric_exporters, span_exporters
from bridges.telemetry.prometheus import PrometheusMetrics
from bridges.telemetry.settings import TelemetrySettings
from streaming.errors import SettingsError
from streaming.http.routes import Route
from streaming.telemetry import Telemetry, Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_log = logging.getLogger(__name__)

#: What the service is called where OTEL_SERVICE_NAME says nothing.
SERVICE_NAME: Final = "reliable-agent-streaming"
#: How long stopping waits for what is still to be sent.
FLUSH_TIMEOUT: Final = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class TelemetryBackends:
    """What a host needs of them."""

    #: To be passed to what is to be told of.
    telemetry: Telemetry
    routes: tuple[Route, ...]
    #: For a host whose routes need no prefix.
    root_routes: tuple[Route, ...]
    _stops: list[Callable[[], object]] = field(default_factory=list)

    async def aclose(self) -> None:
        """Send what is left, as far as it can be sent soon."""
        # Where nobody takes it the packages try for longer; a daemon does not keep the process.
        sending = [threading.Thread(target=stop, daemon=True) for stop in self._stops]
        for thread in sending:
            thread.start()
        give_up_at = time.monotonic() + FLUSH_TIMEOUT.total_seconds()
        for thread in sending:
            await asyncio.to_thread(thread.join, max(0.0, give_up_at - time.monotonic()))


def create_telemetry(settings: TelemetrySettings, *, is_platforms: bool = False) -> TelemetryBackends:
    """Count always, trace and send where settings ask for it.

    Args:
        settings: Where to send.
        is_platforms: Whether the platform sets what names Azure Monitor, for its own sake: then it asks for
            no package that is not installed.

    Raises:
        SettingsError: a setting asks for a package that is not installed.
    """
    if is_platforms and settings.azure_monitor is not None:
        settings = _without_missing(settings)
    stops: list[Callable[[], object]] = []
    counts = Counts(_traces(settings, stops))
    if settings.sends_metrics:
        stops.append(_send_metrics(settings, counts))
    prometheus = PrometheusMetrics(counts.families)
    return TelemetryBackends(counts, prometheus.routes, prometheus.root_routes, stops)


def _without_missing(settings: TelemetrySettings) -> TelemetrySettings:
    try:
        span_exporters(TelemetrySettings(azure_monitor=settings.azure_monitor))
    except SettingsError as missing:
        _log.info("no traces or metrics to Azure Monitor: %s", missing)
        return TelemetrySettings(settings.otlp_traces, settings.otlp_metrics)
    return settings


def _traces(settings: TelemetrySettings, stops: list[Callable[[], object]]) -> Traces | None:
    exporters = span_exporters(settings)
    if not exporters:
        return None
    # A noticeable part of a start, for those alone who trace.
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from bridges.telemetry.opentelemetry_traces import OpenTelemetryTraces  # noqa: PLC0415
    from bridges.telemetry.redaction import RedactingExporter  # noqa: PLC0415

    provider = TracerProvider(resource=_resource())
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(RedactingExporter(exporter)))
    # Where Agent Framework, and what else traces in this process, looks for it.
    trace.set_tracer_provider(provider)
    stops.append(provider.shutdown)
    return OpenTelemetryTraces(provider.get_tracer("agent_stream"))


def _send_metrics(settings: TelemetrySettings, counts: Counts) -> Callable[[], object]:
    from opentelemetry import metrics  # noqa: PLC0415 - see above
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    from bridges.telemetry.opentelemetry_metrics import SCOPE, WithHistograms, observe  # noqa: PLC0415

    readers = [
        PeriodicExportingMetricReader(WithHistograms(exporter, counts.families))
        for exporter in metric_exporters(settings)
    ]
    provider = MeterProvider(metric_readers=readers, resource=_resource())
    observe(provider.get_meter(SCOPE), counts.families)
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _resource() -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME as NAME  # noqa: PLC0415 - see above
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    given = OTELResourceDetector().detect().attributes
    return Resource.create({} if NAME in given else {NAME: SERVICE_NAME})
