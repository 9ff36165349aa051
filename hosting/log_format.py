"""Logs of the standalone host: one readable line an event, on standard error."""

from __future__ import annotations

import logging

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
    """A worker that stops complains, over several lines, of the cancel that stops it."""
    message = record.getMessage()
    return not ("work item stream" in message and "CANCELLED" in message)
