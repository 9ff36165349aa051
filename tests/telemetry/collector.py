"""A local OTLP endpoint, for the vendor's real exporter: keeps the spans and metrics that it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.service import eventually


@dataclass(frozen=True, slots=True)
class SentSpan:
    """A span as it was sent."""

    scope: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    is_error: bool
    seconds: float


@dataclass(slots=True)
class Collector:
    """What has come so far."""

    url: str
    spans: list[SentSpan] = field(default_factory=list)
    #: By name, each as its protobuf.
    metrics: dict[str, Any] = field(default_factory=dict)
    #: All that came, as bytes.
    received: bytearray = field(default_factory=bytearray)

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a service that sends here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }

    def named(self, name: str) -> list[SentSpan]:
        """The spans of a name."""
        return [span for span in self.spans if span.name == name]

    async def span(self, name: str, **attributes: object) -> SentSpan:
        """Wait for a span of a name with these attributes of ours."""

        def found() -> list[SentSpan]:
            wanted = {f"agent_stream.{key}": value for key, value in attributes.items()}
            return [span for span in self.named(name) if wanted.items() <= span.attributes.items()]

        async def has_come() -> bool:
            return bool(found())

        await eventually(has_come, f"a span {name!r} with {attributes}")
        return found()[0]

    def take(self, path: str, body: bytes) -> None:
        """Take what was posted."""
        self.received += body
        if path.endswith("/v1/traces"):
            self._take_spans(ExportTraceServiceRequest.FromString(body))
        else:
            sent = ExportMetricsServiceRequest.FromString(body)
            for resource in sent.resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}

    def _take_spans(self, sent: Any) -> None:
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        SentSpan(
                            scope=scope.scope.name,
                            name=span.name,
                            trace=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            links=tuple(link.span_id.hex() for link in span.links),
                            attributes={each.key: _value(each.value) for each in span.attributes},
                            is_error=span.status.code == 2,
                            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        )
                    )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector while inside."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            told.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
