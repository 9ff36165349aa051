"""Logs of the standalone host: one readable line an event, on standard error."""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError

#: Libraries that tell of each of their steps at INFO.
_CHATTY = ("agent_framework", "azure", "durabletask", "httpx", "openai", "uvicorn.error")


def configure_logging(level: str) -> None:
    """Set up logging once, at the start of the process. ``level`` counts for our own modules."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", force=True
    )
    if level != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("durabletask").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """The worker logs stack traces of two things that we do on purpose.

    It stops by a cancel of its own call; and a run that was taken over, or ended by others, unwinds with a
    ``CancelledError``.
    """
    if record.exc_info and isinstance(record.exc_info[1], CancelledError):
        return False
    message = record.getMessage()
    return not ("work item stream" in message and "CANCELLED" in message)
