"""The standalone service where the system allows few open files: ``OPEN_FILES=soft,hard``."""

from __future__ import annotations

import os
import resource
import sys

if __name__ == "__main__":
    soft, hard = (int(part) for part in os.environ["OPEN_FILES"].split(","))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.execv(sys.executable, [sys.executable, "-m", "standalone"])  # noqa: S606 - as the shell does after ``ulimit``
