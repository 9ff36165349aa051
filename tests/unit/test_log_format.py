"""Lines of the log, for people and for programs: ``hosting.log_format``."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from hosting.log_format import JsonFormatter, TextFormatter
from streaming.settings import Settings
from streaming.writing.run_control import RunControl, current_run

TRACE = "0af7651916cd43dd8448eb211c80319c"


def record(message: str, *values: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("streaming.x", level, "x.py", 1, message, values, None)


def as_json(message: str, *values: object) -> dict[str, Any]:
    return dict(json.loads(JsonFormatter().format(record(message, *values))))


def test_facts_become_fields() -> None:
    """Each ``name=value`` is a field, numbers as numbers; the event is what comes before them."""
    form = "run ended: conversation=%s run=%s chunks=%d seconds=%.1f outcome=%s"
    line = as_json(form, "1", "2", 3, 4.5, "ok")
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "streaming.x",
        "message": "run ended: conversation=1 run=2 chunks=3 seconds=4.5 outcome=ok",
        "event": "run ended",
        # Ids stay text, whatever they look like.
        "conversation": "1",
        "run": "2",
        "chunks": 3,
        "seconds": 4.5,
        "outcome": "ok",
    }


def test_a_line_cannot_forge_fields_or_lines() -> None:
    """What is logged can neither end the line nor take the place of the line's own fields."""
    line = as_json("odd: level=%s time=%s", 'ERROR"\n{"x": 1}', "0")
    assert (line["level"], line["logger"]) == ("INFO", "streaming.x")
    assert "\n" not in JsonFormatter().format(record("two\nlines"))


def test_a_line_without_facts() -> None:
    """It is its own event."""
    assert as_json("conversations are saved again")["event"] == "conversations are saved again"


async def test_lines_in_a_run_have_its_ids() -> None:
    """Whoever writes a line while a run is executed, it names conversation, run, attempt and trace."""
    control = RunControl("c", "r")
    control.attempt, control.trace = 2, f"00-{TRACE}-b7ad6b7169203331-01"
    current_run.set(control)
    line = as_json("a tool's own words")
    assert (line["conversation"], line["run"], line["attempt"], line["trace"]) == ("c", "r", 2, TRACE)
    text = TextFormatter().format(record("a tool's own words"))
    assert text.endswith(f"INFO    a tool's own words conversation=c run=r attempt=2 trace={TRACE}")
    assert TextFormatter().format(record("x: conversation=c run=r")).endswith("x: conversation=c run=r")
    current_run.set(None)


def test_an_exception_is_a_field() -> None:
    """A stack trace, which only DEBUG has, stays on the line."""
    each = record("broke")
    each.exc_info = (ValueError, ValueError("why"), None)
    line = json.loads(JsonFormatter().format(each))
    assert "ValueError: why" in line["exception"]


@pytest.mark.parametrize(("value", "expected"), [("", "text"), ("text", "text"), ("JSON", "json")])
def test_the_format_is_a_setting(value: str, expected: str) -> None:
    """Text, unless JSON is asked for."""
    assert Settings.from_environment({"LOG_FORMAT": value}).log_format == expected
