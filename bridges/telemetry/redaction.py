"""Takes out of spans what may hold what was said, whoever wrote it there, before an exporter sees them.

Agent Framework writes messages into its spans if it is told to, and what an exception says always; and that
may be a prompt, a part of an answer, or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

#: Attributes of the GenAI conventions that hold what was said, as words between dots.
_PAYLOAD: Final = frozenset(
    {
        "arguments",
        "completion",
        "definitions",
        "description",
        "instructions",
        "messages",
        "prompt",
        "result",
        "system_instructions",
    }
)
_GEN_AI: Final = "gen_ai."
#: Of an exception only its kind is kept.
_EXCEPTION_TYPE: Final = "exception.type"
#: The durable worker's own spans: each is the root of a trace of its own, since a signal carries no context.
#: The attempt's span tells more, and is in the run's trace.
_LEFT_OUT: Final = "durabletask"


class RedactingExporter(SpanExporter):
    """Passes spans on without what was said."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Pass them on."""
        kept = [_redacted(span) for span in spans if not _is_left_out(span)]
        return self._exporter.export(kept) if kept else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Pass it on."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Pass it on."""
        return self._exporter.force_flush(timeout_millis)


def _is_left_out(span: ReadableSpan) -> bool:
    return span.instrumentation_scope is not None and span.instrumentation_scope.name == _LEFT_OUT


def _redacted(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={
            name: value for name, value in (span.attributes or {}).items() if not _holds_payload(name)
        },
        events=[_without_payload(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        # What it describes is most often an exception's own words.
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _holds_payload(name: str) -> bool:
    return name.startswith(_GEN_AI) and name.rpartition(".")[2] in _PAYLOAD


def _without_payload(event: Event) -> Event:
    attributes: Mapping[str, Any] = event.attributes or {}
    kept = {_EXCEPTION_TYPE: attributes[_EXCEPTION_TYPE]} if _EXCEPTION_TYPE in attributes else {}
    return Event(event.name, kept, event.timestamp)
