"""A peer: agno's ``RedisEventStream`` (Python, Redis Streams), with a ``tail()`` for each reader.

Its programs are in ``agno_programs.py`` and run in an environment of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.contestants.contestant import Contestant, Kind, Load, Place
from benchmarks.peers import python_environment
from benchmarks.programs import Command

VERSION: Final = "3.1.10"
#: As fast a server and driver as this project has.
_REQUIREMENTS: Final = (
    f"agno=={VERSION}",
    "fastapi",
    "hiredis",
    "httptools",
    "python-multipart",
    "redis",
    "sqlalchemy",
    "uvicorn",
    "uvloop",
)


def prepare(cache: Path) -> None:
    """Install it."""
    python_environment(cache, "agno", _REQUIREMENTS)


def _program(place: Place, *arguments: object) -> Command:
    python = python_environment(place.cache, "agno", _REQUIREMENTS)
    module = ["-m", "benchmarks.contestants.agno_programs"]
    return Command([str(python), *module, *(str(each) for each in arguments)])


def _writer(place: Place, load: Load) -> Command:
    return _program(place, "write", place.redis_url, *load.arguments())


CONTESTANT: Final = Contestant(
    name="agno",
    title=f"agno {VERSION} (Redis Streams, Python)",
    kind=Kind.PEER,
    server=lambda place, _load: _program(place, "serve", place.redis_url, place.port),
    writer=_writer,
    filler=lambda place, chunks: _program(place, "fill", place.redis_url, chunks),
    # Each has a connection to Redis, which takes 10,000.
    most_readers=9_000,
    prepare=prepare,
)
