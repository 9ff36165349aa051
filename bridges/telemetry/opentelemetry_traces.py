"""Traces by OpenTelemetry: one trace follows a message, from its request over each attempt to each reader.

The context goes with the run, as W3C ``traceparent`` in its state in Redis: so it reaches whichever process
executes the run, and whichever readers come, however late.
"""

from __future__ import annotations

import time
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from streaming.telemetry import AttemptBegan, Facts, ReaderOpened, RequestBegan, Span, Traces

#: Before the names of our own attributes.
_OURS: Final = "agent_stream."
#: Longer ones are no ``traceparent`` of any version that there is.
_LONGEST: Final = 128
_FAILED: Final = ("failed", "interrupted", "stream_lost")
_SERVER_FAULT: Final = "5"

_propagator: Final = TraceContextTextMapPropagator()


class OpenTelemetryTraces(Traces):
    """Traces with one tracer."""

    is_on = True

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @override
    def request(self, began: RequestBegan) -> Span:
        span = self._tracer.start_span(
            f"{began.method} {began.route}",
            context=_context(began.traceparent),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": began.method, "http.route": began.route},
        )
        return _RequestSpan(span)

    @override
    def attempt(self, began: AttemptBegan) -> Span:
        attributes: dict[str, str | int | float] = {
            "gen_ai.agent.name": began.agent,
            f"{_OURS}conversation": began.conversation_id,
            f"{_OURS}run": began.run,
            f"{_OURS}attempt": began.attempt,
        }
        if began.waited is not None:
            attributes[f"{_OURS}waited_seconds"] = began.waited
        parent = _context(began.traceparent)
        # A span is exported when it ends; of an attempt whose process is killed, this one is left.
        now = time.time_ns()
        begun = self._tracer.start_span("attempt begun", parent, attributes=attributes, start_time=now)
        begun.end(now)
        span = self._tracer.start_span(f"run {began.agent}", parent, attributes=attributes, start_time=now)
        return _OpenSpan(span)

    @override
    def reader(self, opened: ReaderOpened) -> Span:
        run = _span_context(opened.run_traceparent)
        client = _span_context(opened.traceparent)
        span = self._tracer.start_span(
            f"GET {opened.route}",
            context=_context(opened.traceparent if client else opened.run_traceparent),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": "GET",
                "http.route": opened.route,
                f"{_OURS}conversation": opened.conversation_id,
                f"{_OURS}resumed": opened.resumed,
            },
            links=[Link(run)] if run is not None else None,
            start_time=opened.began,
        )
        return _OpenSpan(span)

    @override
    def moment(self, name: str, traceparent: str, facts: Facts) -> None:
        if _span_context(traceparent) is None:
            return
        now = time.time_ns()
        attributes = {f"{_OURS}{fact}": value for fact, value in facts.items()}
        span = self._tracer.start_span(name, _context(traceparent), attributes=attributes, start_time=now)
        span.end(now)


class _OpenSpan(Span):
    """One of OpenTelemetry's."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @override
    def make_current(self) -> None:
        # For the rest of the task, which is the request's or the attempt's own.
        otel_context.attach(trace.set_span_in_context(self._span))

    @override
    def end(self, outcome: str, facts: Facts | None = None) -> None:
        if not self._span.is_recording():
            return
        self._describe(outcome)
        self._span.set_attributes({f"{_OURS}{name}": value for name, value in (facts or {}).items()})
        self._span.end()

    def _describe(self, outcome: str) -> None:
        self._span.set_attribute(f"{_OURS}outcome", outcome)
        if outcome in _FAILED:
            self._span.set_status(Status(StatusCode.ERROR))


class _RequestSpan(_OpenSpan):
    """Its outcome is the answer's status."""

    def _describe(self, outcome: str) -> None:
        if outcome.isdigit():
            self._span.set_attribute("http.response.status_code", int(outcome))
        if outcome.startswith(_SERVER_FAULT):
            self._span.set_status(Status(StatusCode.ERROR))


def _context(traceparent: str) -> Context:
    """What a ``traceparent`` says; of one that can't be used, a new trace's."""
    carrier = {"traceparent": traceparent} if len(traceparent) <= _LONGEST else {}
    # Not what is current here: that is the worker's, or nothing.
    return _propagator.extract(carrier, context=Context())


def _span_context(traceparent: str) -> SpanContext | None:
    found = trace.get_current_span(_context(traceparent)).get_span_context()
    return found if found.is_valid else None
