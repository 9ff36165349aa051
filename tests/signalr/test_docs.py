"""What docs/signalr.md shows is what is tested, and runs as it is shown."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.service import PATIENCE, ROOT, Service
from tests.signalr.helpers import FOLLOW

PAGE = (ROOT / "docs" / "signalr.md").read_text(encoding="utf-8")


def test_the_follower_is_the_tested_one() -> None:
    """The page's program for browsers and Node is the one that the tests of drops run."""
    shown = re.search(r"```js\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    assert shown[1] == FOLLOW.read_text(encoding="utf-8")


def test_the_python_program_runs(service: Service) -> None:
    """The page's client in Python prints the answer and its end."""
    program = re.search(r"<<'EOF'\n(.*?)\nEOF\n", PAGE, re.DOTALL)
    assert program is not None
    done = subprocess.run(
        [sys.executable, "-", service.url, "Plan a 1-day trip to Rome"],
        input=program[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# ")
    assert re.search(r"\[completed, cursor \d+-\d+\]\n$", done.stdout)
