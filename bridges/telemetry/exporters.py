"""OpenTelemetry's exporters, imported only where a setting asks for them: they are optional packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from bridges.telemetry.settings import AZURE_MONITOR, TelemetrySettings
from streaming.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

_T = TypeVar("_T")

REQUIREMENTS: Final = "requirements-telemetry.txt"


def span_exporters(settings: TelemetrySettings) -> list[SpanExporter]:
    """Where spans go.

    Raises:
        SettingsError: a setting asks for a package that is not installed, or that refuses it.
    """
    otlp = _otlp_spans if settings.otlp_traces else None
    return _exporters(otlp, _azure_spans, settings.azure_monitor)


def metric_exporters(settings: TelemetrySettings) -> list[MetricExporter]:
    """Where metrics go.

    Raises:
        SettingsError: a setting asks for a package that is not installed, or that refuses it.
    """
    otlp = _otlp_metrics if settings.otlp_metrics else None
    return _exporters(otlp, _azure_metrics, settings.azure_monitor)


def _exporters(
    otlp: Callable[[], _T] | None, azure: Callable[[str], _T], azure_connection: str | None
) -> list[_T]:
    exporters: list[_T] = []
    if otlp is not None:
        exporters.append(_imported("OTEL_EXPORTER_OTLP_ENDPOINT", otlp))
    if azure_connection is not None:
        exporters.append(_imported(AZURE_MONITOR, partial(azure, azure_connection)))
    return exporters


def _imported(setting: str, create: Callable[[], _T]) -> _T:
    try:
        return create()
    except ImportError:
        remedy = f"needs packages that are not installed: pip install -r {REQUIREMENTS}."
        raise SettingsError(setting, remedy) from None
    except ValueError as error:
        # The packages name the value only where it is no secret: a timeout, a compression.
        raise SettingsError(setting, f"can't be used: {type(error).__name__}.") from None


def _otlp_spans() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - optional
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()


def _otlp_metrics() -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - optional
        OTLPMetricExporter,
    )

    return OTLPMetricExporter()


def _azure_spans(connection_string: str) -> SpanExporter:
    from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter  # noqa: PLC0415 - optional

    return AzureMonitorTraceExporter(connection_string=connection_string)


def _azure_metrics(connection_string: str) -> MetricExporter:
    from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter  # noqa: PLC0415 - optional

    return AzureMonitorMetricExporter(connection_string=connection_string)
