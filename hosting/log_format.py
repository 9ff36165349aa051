"""Logs: what the standalone host's look like, and what libraries may not write into either host's.

A line says what happened, then facts as ``name=value``: ``run ended: run=… outcome=completed``. As JSON each
fact is a field of its own. A line that is written while a run is executed, by us, a tool or a library, has
the run's ids.
"""

from __future__ import annotations

import json
import logging
import re
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from typing import Final

from streaming.writing.run_control import current_run

#: Libraries that tell of each of their steps at INFO.
_CHATTY = ("agent_framework", "azure", "durabletask", "httpx", "openai", "uvicorn.error")
#: Libraries that send telemetry, and tell of each try that failed, some with the address.
_SENDERS: Final = ("azure.monitor", "opentelemetry")
#: While nobody takes telemetry, it is said so often.
REMINDER: Final = timedelta(minutes=5)

#: Where the path is among the values of a line of uvicorn's access log.
_PATH: Final = 2

#: ``name=value`` in a line.
_FACT: Final = re.compile(r"\b([a-z][a-z_]*)=(\S*)")
#: What is a number in JSON: counts and seconds. Ids may look like one, but are none.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d+)?")
_IDS: Final = ("conversation", "run")
#: Fields of a line itself, which no fact takes the place of.
_OWN: Final = ("time", "level", "logger", "message", "event")
#: Where the trace's id is in a ``traceparent``.
_TRACE_ID: Final = slice(3, 35)

TEXT: Final = "text"
JSON: Final = "json"


def configure_logging(level: str, log_format: str = TEXT) -> None:
    """Set up logging once, at the start of the process.

    Args:
        level: Counts for our own modules.
        log_format: ``TEXT`` for people, ``JSON`` for programs: an object a line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == JSON else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level != "DEBUG":
        handler.addFilter(_Reminder())
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in _SENDERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("durabletask").addFilter(_is_news)


class _Reminder(logging.Filter):
    """Lets a line of those who send telemetry through now and then: they write one for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if not record.name.startswith(_SENDERS):
            return True
        if record.created - self._told_at.get(record.name, 0) < REMINDER.total_seconds():
            return False
        self._told_at[record.name] = record.created
        return True


class TextFormatter(logging.Formatter):
    """For people at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of what it overrides
        """The line, with the ids of the run that it was written in."""
        line = super().formatMessage(record)
        if "conversation=" in record.message:
            return line
        return line + "".join(f" {name}={value}" for name, value in _ids_of_run().items())


class JsonFormatter(logging.Formatter):
    """An object a line, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        message = record.getMessage()
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, str | int | float] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "event": _FACT.split(message, maxsplit=1)[0].strip(" :,"),
        }
        facts = {**_ids_of_run(), **dict(_FACT.findall(message))}
        line |= {name: _value(name, text) for name, text in facts.items() if name not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _value(name: str, text: str) -> str | int | float:
    if name in _IDS or not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _ids_of_run() -> dict[str, str]:
    control = current_run.get()
    if control is None:
        return {}
    ids = {"conversation": control.conversation_id, "run": control.run, "attempt": str(control.attempt)}
    return ids | ({"trace": control.trace[_TRACE_ID]} if control.trace else {})


def keep_queries_out_of_access_logs() -> None:
    """Have uvicorn's access log name the path alone: a query may hold a key or a token.

    For the function app, whose live HTTP the platform serves with a uvicorn that it sets up by itself.
    """
    access = logging.getLogger("uvicorn.access")
    if _drop_query not in access.filters:
        access.addFilter(_drop_query)


def _drop_query(record: logging.LogRecord) -> bool:
    # Client, method, path with query, HTTP version, status.
    if isinstance(record.args, tuple) and len(record.args) > _PATH:
        path = str(record.args[_PATH]).partition("?")[0]
        record.args = (*record.args[:_PATH], path, *record.args[_PATH + 1 :])
    return True


def _is_news(record: logging.LogRecord) -> bool:
    """The worker logs stack traces of two things that we do on purpose.

    It stops by a cancel of its own call; and a run that was taken over, or ended by others, unwinds with a
    ``CancelledError``.
    """
    if record.exc_info and isinstance(record.exc_info[1], CancelledError):
        return False
    message = record.getMessage()
    return not ("work item stream" in message and "CANCELLED" in message)
