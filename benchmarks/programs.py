"""Child processes of a bench: how they are started and told to go, and what they have used.

What is measured has a core to itself where there are two; everything else (Redis, the load, the bench) shares
the others. A program talks in lines: it says ``ready`` (or ``open``, ``over``), is told ``go``, and ends with
one line of JSON, its outcome.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
#: Until a program says that it is ready. Ten thousand readers take some seconds to connect.
READY_TIMEOUT: Final = timedelta(seconds=60)
#: Until a program that was told to go has its outcome, on top of the time that it was given.
OUTCOME_TIMEOUT: Final = timedelta(seconds=90)
#: Characters of a program's log that an error repeats.
_LOG_TAIL: Final = 2_000
_PIECE: Final = 65_536
_CLOCK_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


class ProgramFailed(Exception):
    """A program ended, or said nothing, where it should have said something."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program to start."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where."""

    measured: frozenset[int]
    load: frozenset[int]

    @property
    def is_shared(self) -> bool:
        """Whether what is measured and the load are on the same cores."""
        return self.measured == self.load


@contextlib.contextmanager
def divided_cores() -> Iterator[Cores]:
    """Leave the first core to what is measured, if there are two; as many files as this user may open."""
    all_cores = frozenset(os.sched_getaffinity(0))
    first = frozenset([min(all_cores)])
    cores = Cores(first, all_cores - first) if len(all_cores) > 1 else Cores(all_cores, all_cores)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    os.sched_setaffinity(0, cores.load)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, all_cores)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)


class Program:
    """A running child process."""

    def __init__(self, command: Command, log: Path, cores: frozenset[int] | None = None) -> None:
        """Start it; on ``cores``, else where the bench is."""
        self._argv = list(command.argv)
        self._log = log
        self._said = b""
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                self._argv,
                cwd=ROOT,
                env={**os.environ, **command.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        if cores is not None:
            # Threads that it starts from now on follow.
            os.sched_setaffinity(self._process.pid, cores)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for(self, word: str, timeout: timedelta = READY_TIMEOUT) -> str:
        """Wait for a line that begins with ``word``, in whatever case. Returns the line.

        Raises:
            ProgramFailed: it did not say so.
        """
        until = time.monotonic() + timeout.total_seconds()
        while True:
            line = self._line(until, word)
            if line.lower().startswith(word):
                return line

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def outcome(self, timeout: timedelta = OUTCOME_TIMEOUT) -> dict[str, Any]:
        """What it has to say at its end.

        Raises:
            ProgramFailed: it ended without.
        """
        return dict(json.loads(self.wait_for("{", timeout)))

    def _line(self, until: float, awaited: str) -> str:
        while b"\n" not in self._said:
            stdout = self._process.stdout
            wait = until - time.monotonic()
            ready = stdout is not None and wait > 0 and select.select([stdout], [], [], wait)[0]
            piece = os.read(stdout.fileno(), _PIECE) if ready and stdout is not None else b""
            if not piece:
                raise ProgramFailed(
                    f"Expected {awaited!r} of {self._argv}; its log ends with: {self._tail()}"
                )
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return line.decode(errors="replace")

    def _tail(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip() or "(nothing)"

    def cpu(self) -> float:
        """What it and the processes that it started have used of processors so far, in seconds."""
        return sum(self.cpu_of_each())

    def cpu_of_each(self) -> list[float]:
        """Of each process, itself first; by the kernel's account, threads included."""
        processes, parents = [self.pid], _parents()
        for pid in processes:
            processes += [child for child, parent in parents.items() if parent == pid]
        return [_cpu_of(pid) for pid in processes]

    def memory(self) -> int:
        """Its resident memory in bytes."""
        return self._status("VmRSS")

    def memory_peak(self) -> int:
        """The most that was resident since ``forget_peak``, in bytes."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Let the peak of the resident memory begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        [line] = [line for line in lines if line.startswith(f"{name}:")]
        return int(line.split()[1]) * 1_024

    def end(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait(OUTCOME_TIMEOUT.total_seconds())

    def stop(self) -> None:
        """End it. What it still had to do does not matter any more."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()


def _cpu_of(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _CLOCK_TICK


def _parents() -> dict[int, int]:
    """The parent of each process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Others come and go meanwhile.
            with contextlib.suppress(OSError):
                found[int(entry.name)] = int(_stat(int(entry.name))[1])
    return found


def busy_seconds(cores: frozenset[int]) -> float:
    """What the cores were busy so far, all of them together, whoever used them."""
    busy = 0.0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu" and int(name[3:]) in cores:
            # user, nice, system, then idle and waiting, then interrupts and what other machines stole
            busy += sum(int(tick) for tick in (*ticks[:3], *ticks[5:8])) * _CLOCK_TICK
    return busy
