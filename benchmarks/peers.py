"""Installs peers into a cache folder: Python ones in an environment of their own, Node ones together.

Versions are pinned: figures of two runs are about the same programs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks.contestants.contestant import Unavailable

#: Of one installation; a package index that is this slow is as good as none.
_INSTALL_TIMEOUT: Final = timedelta(minutes=5)
#: Characters of a failed installation's last line.
_REASON: Final = 200

NODE_PACKAGES: Final[Mapping[str, str]] = {
    "@durable-streams/server": "0.3.7",
    "resumable-stream": "2.2.13",
    # What resumable-stream talks to Redis with.
    "redis": "4.7.1",
}


def python_environment(cache: Path, name: str, requirements: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages.

    Raises:
        Unavailable: they can't be installed.
    """
    folder = cache / name
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(requirements)
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
        stamp.write_text(wanted, encoding="utf-8")
    return python


def node_modules(cache: Path) -> Path:
    """The folder of all Node peers, installed.

    Raises:
        Unavailable: there is no Node, or they can't be installed.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed.")
    folder = cache / "node"
    stamp = folder / "installed.txt"
    packages = [f"{name}@{version}" for name, version in NODE_PACKAGES.items()]
    wanted = "\n".join(packages)
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", *packages], folder)
        stamp.write_text(wanted, encoding="utf-8")
    return folder


def prepare_node(cache: Path) -> None:
    """Install the Node peers, if they are not there yet.

    Raises:
        Unavailable: there is no Node, or they can't be installed.
    """
    node_modules(cache)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_INSTALL_TIMEOUT.total_seconds(),
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} took over {_INSTALL_TIMEOUT}.") from None
    except subprocess.CalledProcessError as error:
        *_, reason = ["", *str(error.stderr).strip().splitlines()]
        raise Unavailable(f"{Path(command[0]).name} failed: {reason[:_REASON]}") from None
