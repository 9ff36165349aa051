"""What a contestant is: commands that start its server and its writer. Knows none of them."""

from __future__ import annotations

import enum
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import Command


class Kind(enum.StrEnum):
    """What a contestant stands for."""

    OURS = "ours"
    #: A design that comes to mind first, written anew.
    NAIVE = "naive"
    #: The least that has to be done, without anything that a service is for.
    FLOOR = "floor"
    PEER = "peer"


class Unavailable(Exception):
    """A contestant can't take part here; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contestant is measured."""

    redis_url: str
    #: Where its server is to listen on 127.0.0.1.
    port: int
    #: Where peers are installed.
    cache: Path
    #: For its files; gone afterwards.
    folder: Path

    @property
    def redis_port(self) -> int:
        """The port of its Redis."""
        return int(self.redis_url.rsplit(":", 1)[1].partition("/")[0])


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a contestant."""

    streams: int
    #: Readers of each stream.
    readers: int = 0
    #: Chunks a second over all streams; 0: as fast as it can.
    rate: float = 0
    seconds: float = 1

    @property
    def all_readers(self) -> int:
        """Of all streams together."""
        return self.streams * self.readers

    def arguments(self) -> list[str]:
        """For a program's command line; ``benchmarks.loads.pacing`` reads them."""
        return [str(self.streams), str(self.rate), str(self.seconds)]


def _is_there(_cache: Path) -> None:
    """Nothing to install."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those that are measured. What it lacks, it takes no part in."""

    name: str
    title: str
    kind: Kind
    #: Serves readers over HTTP; says ``ready``.
    server: Callable[[Place, Load], Command] | None = None
    #: Where a reader finds a stream, from its start.
    path: str = "/stream/{stream}"
    #: Writes; says ``ready`` when there is something to follow, and is told ``go``.
    writer: Callable[[Place, Load], Command] | None = None
    #: Writes while readers are measured, where that is not the writer. Without both the server does.
    feeder: Callable[[Place, Load], Command] | None = None
    #: The writer writes to the server and not to Redis.
    writes_to_server: bool = False
    #: Writes one finished stream of so many chunks.
    filler: Callable[[Place, int], Command] | None = None
    #: Reads that stream without HTTP, so many times.
    in_process_reader: Callable[[Place, int], Command] | None = None
    #: It can't have more readers.
    most_readers: int | None = None
    #: Install it below the folder, if it is not there yet; raises ``Unavailable``.
    prepare: Callable[[Path], None] = _is_there


def own_program(module: str, *arguments: object) -> Command:
    """A module of ours as a program."""
    return Command([sys.executable, "-m", module, *(str(each) for each in arguments)])


def needs_on_path(program: str) -> Callable[[Path], None]:
    """A contestant that is there if a program is."""

    def prepare(_cache: Path) -> None:
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed.")

    return prepare
