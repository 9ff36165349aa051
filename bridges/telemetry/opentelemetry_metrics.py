"""Metrics by OpenTelemetry: the counts as observable instruments, and their histograms as they are.

The interface has no instrument for a histogram that was counted elsewhere, so these are put beside what its
own collector has gathered, on the way to the exporter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ScopeMetrics,
)

from bridges.telemetry.families import Family, Kind
from bridges.telemetry.families import Histogram as Counted

#: Of our meter and our metrics.
SCOPE: Final = "agent_stream"

_Families = Callable[[], Iterable[Family]]
_Labels = tuple[str, ...]


def observe(meter: Meter, families: _Families) -> None:
    """Make an instrument for each family that is no histogram."""

    def observer(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_options: CallbackOptions) -> Iterable[Observation]:
            family = next(family for family in families() if family.name == name)
            return [
                Observation(number, dict(zip(family.labels, values, strict=True)))
                for values, number in family.numbers.items()
            ]

        return read

    for family in families():
        if family.kind is Kind.HISTOGRAM:
            continue
        is_counter = family.kind is Kind.COUNTER
        create: Any = meter.create_observable_counter if is_counter else meter.create_observable_gauge
        create(_name(family), callbacks=[observer(family.name)], unit=family.unit, description=family.help)


def _name(family: Family) -> str:
    return f"{SCOPE}.{family.name}"


def _with(gathered: ScopeMetrics, metrics: Sequence[Metric]) -> ScopeMetrics:
    """What our own meter has gathered, and these: exporters take one group of a scope."""
    if gathered.scope.name != SCOPE:
        return gathered
    return replace(gathered, metrics=[*gathered.metrics, *metrics])


class WithHistograms(MetricExporter):
    """Adds the families' histograms to what is exported."""

    def __init__(self, exporter: MetricExporter, families: _Families) -> None:
        # There is no public way to ask an exporter what it prefers; the SDK's own reader does the same.
        temporality, aggregation = exporter._preferred_temporality, exporter._preferred_aggregation  # noqa: SLF001
        super().__init__(temporality, aggregation)
        preferred = (temporality or {}).get(HistogramInstrument, AggregationTemporality.CUMULATIVE)
        self._temporality = preferred
        self._exporter = exporter
        self._families = families
        #: Since when the numbers count, Unix time in nanoseconds.
        self._since = time.time_ns()
        self._before: dict[tuple[str, _Labels], tuple[list[int], float]] = {}

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export both."""
        now = time.time_ns()
        metrics = [self._metric(family, now) for family in self._families() if family.kind is Kind.HISTOGRAM]
        if self._temporality is AggregationTemporality.DELTA:
            self._since = now
        both = MetricsData(
            [
                replace(each, scope_metrics=[_with(scope, metrics) for scope in each.scope_metrics])
                for each in metrics_data.resource_metrics
            ]
        )
        return self._exporter.export(both, timeout_millis, **kwargs)

    def _metric(self, family: Family, now: int) -> Metric:
        points = []
        for values, counted in family.histograms.items():
            counts, total = self._counts(family, values, counted)
            points.append(
                HistogramDataPoint(
                    attributes=dict(zip(family.labels, values, strict=True)),
                    start_time_unix_nano=self._since,
                    time_unix_nano=now,
                    count=sum(counts),
                    sum=total,
                    bucket_counts=counts,
                    explicit_bounds=counted.bounds,
                    # Not known, and left out by exporters: the numbers were counted into buckets.
                    min=None,  # type: ignore[arg-type]  # both are optional on the wire
                    max=None,  # type: ignore[arg-type]
                )
            )
        return Metric(_name(family), family.help, family.unit, Histogram(points, self._temporality))

    def _counts(self, family: Family, values: _Labels, counted: Counted) -> tuple[list[int], float]:
        counts, total = list(counted.counts), counted.total
        if self._temporality is AggregationTemporality.CUMULATIVE:
            return counts, total
        before, total_before = self._before.get((family.name, values), ([0] * len(counts), 0.0))
        self._before[family.name, values] = (counts, total)
        return [now - then for now, then in zip(counts, before, strict=True)], total - total_before

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Pass it on."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Pass it on."""
        self._exporter.shutdown(timeout_millis, **kwargs)
