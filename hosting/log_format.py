"""Logs: what the standalone host's look like, and what libraries may not write into either host's."""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError
from typing import Final

#: Libraries that tell of each of their steps at INFO.
_CHATTY = ("agent_framework", "azure", "durabletask", "httpx", "openai", "uvicorn.error")

#: Where the path is among the values of a line of uvicorn's access log.
_PATH: Final = 2


def configure_logging(level: str) -> None:
    """Set up logging once, at the start of the process. ``level`` counts for our own modules."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", force=True
    )
    if level != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("durabletask").addFilter(_is_news)


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
