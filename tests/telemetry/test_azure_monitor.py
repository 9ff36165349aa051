"""Traces and metrics to Azure Monitor, by the vendor's real exporter and a local endpoint."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.service import connect_http, eventually, read_events, running_service, start_run


@contextmanager
def ingestion() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The service's ingestion endpoint while inside, and what it was sent."""
    items: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent = json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
            items.extend(sent)
            answer = {"itemsReceived": len(sent), "itemsAccepted": len(sent), "errors": []}
            told = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", items
        finally:
            server.shutdown()
            thread.join()


def spans(items: list[dict[str, Any]]) -> dict[str, str]:
    """Names of spans, and the operation that each is part of."""
    told = [(each["tags"].get("ai.operation.id", ""), each["data"].get("baseData", {})) for each in items]
    return {str(base["name"]): operation for operation, base in told if "id" in base}


def numbers(items: list[dict[str, Any]], name: str) -> list[float]:
    """What has come of a metric."""
    points = [point for each in items for point in each["data"].get("baseData", {}).get("metrics", [])]
    return [point["value"] for point in points if point["name"] == name]


async def test_a_run_reaches_azure_monitor(tmp_path: Path) -> None:
    """One operation has the request, the attempt and the reader; metrics tell what was added since."""
    with ingestion() as (url, items):
        key = "00000000-0000-0000-0000-000000000001"
        settings = {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={key};IngestionEndpoint={url}",
            # The exporter's own statistics go to its maker.
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            # Some of it is delivered live.
            "DEMO_MODEL_WORDS_PER_SECOND": "300",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        with running_service(tmp_path / "data", **settings) as service:
            async with connect_http(service) as http:
                run = await start_run(http, "Plan a 1-day trip to Zanzibar")
                await read_events(http, run["conversation_id"])

                async def has_come() -> bool:
                    return (
                        {
                            "POST /api/agents/{agent}/run",
                            "run TravelPlanner",
                            "GET /api/agent/stream/{conversation_id}",
                        }
                        <= spans(items).keys()
                        and sum(numbers(items, "agent_stream.terminals")) == 1
                        and sum(numbers(items, "agent_stream.delivery_seconds")) > 0
                    )

                await eventually(has_come, f"spans and metrics, of {sorted(spans(items))}")
    assert len(set(spans(items).values())) == 1
    assert sum(numbers(items, "agent_stream.appended_entries")) > 100
    assert "Zanzibar" not in str(items)
