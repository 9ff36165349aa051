"""How many files the system lets this process have open, and our settings within it.

Each connection is one of them. A process that may open no more closes new connections without a word, health
checks among them, and can't connect to Redis: a limit of ours that answers has to come before.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Final

from streaming.settings import Settings

_log = logging.getLogger(__name__)

#: Open files that are neither streams nor runs': connections to Redis and the task hub, and short requests.
RESERVE: Final = 256
#: Open files of a run: its model's connection, and a request that waits for its answer.
FILES_OF_RUN: Final = 2
#: Of a limit that is low, no more than this share is kept from streams.
RESERVE_SHARE: Final = 0.5
#: macOS refuses more than this while it says that there is no limit (``OPEN_MAX``).
_OPEN_MAX: Final = 10_240


def within_open_files(settings: Settings) -> Settings:
    """Have the system allow as many open files as are needed; the settings, with no more streams than fit.

    Runs are asked for too, but not cut: seldom do all wait for an answer or talk to their model at once.

    Shells and service managers start programs with few, 1,024 or 256, for the sake of those that use
    ``select``, and let the others raise it: https://0pointer.net/blog/file-descriptor-limits.html.
    """
    limits = settings.limits
    allowed = _allow(limits.max_streams + limits.max_runs * FILES_OF_RUN + RESERVE)
    if allowed is None:
        return settings
    streams = allowed - min(RESERVE, int(allowed * RESERVE_SHARE))
    if streams >= limits.max_streams:
        return settings
    _log.log(
        logging.WARNING if streams < limits.max_streams / 2 else logging.INFO,
        "the system allows %d open files, so %d streams may be open and not %d: raise the hard limit of "
        "`ulimit -n` (systemd: LimitNOFILE, docker: --ulimit nofile), or lower MAX_STREAMS",
        allowed,
        streams,
        limits.max_streams,
    )
    return replace(settings, limits=replace(limits, max_streams=streams))


def _allow(wanted: int) -> int | None:
    """Raise the limit as far as is wanted and may be. Returns the limit; ``None``: there is none."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - Windows has no such limit, and no such module

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (wanted, _OPEN_MAX):
        if soft == resource.RLIM_INFINITY:
            return None
        raised = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if raised <= soft:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        except (OSError, ValueError):
            continue
        return raised
    return soft
