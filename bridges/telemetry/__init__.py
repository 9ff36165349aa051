"""Backends of the telemetry hooks: counts, Prometheus, OpenTelemetry. One backend a file."""
