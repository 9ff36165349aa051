"""Metrics for Prometheus: ``GET /api/metrics``, and ``GET /metrics`` where a host can answer there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bridges.telemetry.families import PREFIX, Family, Histogram, Kind
from streaming.http.access import Needs
from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest, HttpResponse
from streaming.http.routes import Route

#: The hosts' own prefix, and where scrapers look by default.
PATH: Final = "/api/metrics"
ROOT_PATH: Final = "/metrics"


class PrometheusMetrics:
    """Answers with what ``families`` tells, and with the process's own numbers."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Families(families))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    @property
    def routes(self) -> tuple[Route, ...]:
        """For every host."""
        return (Route("GET", PATH, self.metrics, Needs.METRICS),)

    @property
    def root_routes(self) -> tuple[Route, ...]:
        """For hosts whose routes need no prefix."""
        return (Route("GET", ROOT_PATH, self.metrics, Needs.METRICS),)

    async def metrics(self, _endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """``GET /api/metrics``."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # It reads files of the process, and counts all series.
        body: bytes = await asyncio.to_thread(encode, self._registry)
        return HttpResponse(200, {"content-type": content_type, "cache-control": "no-store"}, body)


class _Families(Collector):
    """Families, as Prometheus's client takes them."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families():
            yield _metric(family)


def _metric(family: Family) -> Metric:
    name, text, labels = PREFIX + family.name, family.help, family.labels
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for values, counted in family.histograms.items():
            histogram.add_metric(list(values), _buckets(counted), counted.total)
        return histogram
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    plain = kind(name, text, labels=labels)
    for values, number in family.numbers.items():
        plain.add_metric(list(values), number)
    return plain


def _buckets(counted: Histogram) -> list[tuple[str, float]]:
    """Upper bounds, and how many values lie below each."""
    bounds = [*map(str, counted.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counted.counts), strict=True))
