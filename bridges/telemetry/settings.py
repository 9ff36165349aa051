"""Settings of where traces and metrics are sent. OpenTelemetry's own, as its specification names them.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. What is not read here
(headers, certificates, intervals, sampling, resource attributes) OpenTelemetry's packages read themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from streaming.environment import Environment, parts_of, yes_or_no
from streaming.errors import SettingsError

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_SPOKEN: Final = "http/protobuf"
_EXPORTERS: Final = ("otlp", "none")
AZURE_MONITOR: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
#: What a connection string is known by: the key that says whose the data is.
_AZURE_KEY: Final = "instrumentationkey="


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Where traces and metrics are sent. Nowhere by default; Prometheus fetches its own."""

    otlp_traces: bool = False
    otlp_metrics: bool = False
    #: Of Azure Monitor's Application Insights.
    azure_monitor: str | None = field(default=None, repr=False)

    @property
    def sends_traces(self) -> bool:
        """Whether runs are to be traced."""
        return self.otlp_traces or self.azure_monitor is not None

    @property
    def sends_metrics(self) -> bool:
        """Whether metrics are to be sent."""
        return self.otlp_metrics or self.azure_monitor is not None

    @classmethod
    def read(cls, env: Environment) -> TelemetrySettings:
        """Read them from the environment.

        Raises:
            SettingsError: a value can't be used.
        """
        if env.read("OTEL_SDK_DISABLED", yes_or_no):
            return cls()
        return cls(
            otlp_traces=_is_sent(env, "TRACES"),
            otlp_metrics=_is_sent(env, "METRICS"),
            azure_monitor=env.read(AZURE_MONITOR, _azure_monitor),
        )


def _is_sent(env: Environment, signal: str) -> bool:
    """Whether a signal is sent by OTLP: where an endpoint is named, or the exporter is."""
    exporter = env.read(f"OTEL_{signal}_EXPORTER", _exporter)
    endpoint = env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or env.get(_ENDPOINT)
    is_sent = exporter == "otlp" or (exporter is None and endpoint is not None)
    if is_sent:
        own = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
        name = own if env.get(own) else _PROTOCOL
        protocol = env.get(name)
        if protocol not in (None, _SPOKEN):
            raise SettingsError(name, f"got {protocol!r}, expected {_SPOKEN} (most often port 4318).")
    return is_sent


def _exporter(value: str) -> str:
    named = parts_of(value.lower())
    if len(named) != 1 or named[0] not in _EXPORTERS:
        raise ValueError(f"got {value!r}, expected otlp or none.")
    return named[0]


def _azure_monitor(value: str) -> str:
    if _AZURE_KEY not in value.lower():
        # Not repeated: it may be a key without the words around it.
        raise ValueError(
            "no InstrumentationKey=…: expected InstrumentationKey=…;IngestionEndpoint=https://…."
        )
    return value
