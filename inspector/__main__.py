"""Looks inside: ``python -m inspector list``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from inspector.commands import Inspector, exit_status_of
from inspector.options import InspectorSettings, parse_options
from inspector.screen import PlainScreen, Screen, make_pipe_safe
from streaming.errors import StreamingError

INTERRUPTED: Final = 130
NOBODY_READS: Final = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command. Returns the process's exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    make_pipe_safe(sys.stdout)
    try:
        settings = InspectorSettings.read(os.environ)
        return asyncio.run(Inspector(options, settings, make_screen(sys.stdout), sys.stdout).execute())
    except StreamingError as error:
        sys.stderr.write(f"{error.message}\n")
        return exit_status_of(error)
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except KeyboardInterrupt:
        return INTERRUPTED


def make_screen(out: TextIO) -> Screen:
    """The screen for a stream: with Rich where somebody looks."""
    if out.isatty():
        # A service's own environment may lack it.
        with contextlib.suppress(ImportError):
            from inspector.rich_screen import RichScreen  # noqa: PLC0415

            return RichScreen(out)
    return PlainScreen(out)


if __name__ == "__main__":
    sys.exit(main())
