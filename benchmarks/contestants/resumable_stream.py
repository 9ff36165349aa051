"""A peer: ``resumable-stream`` (Node), which keeps chunks in its producer and passes them on by Redis.

Its producer and its server are two processes of ``resumable_stream.mjs``. Where it writes as fast as it can,
each stream has one listener: without any, nothing leaves the producer. After the end nothing is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.contestants.contestant import Contestant, Kind, Load, Place
from benchmarks.peers import NODE_PACKAGES, node_modules, prepare_node
from benchmarks.programs import Command

_PROGRAM: Final = Path(__file__).with_suffix(".mjs")


def _program(place: Place, *arguments: str) -> Command:
    return Command(
        ["node", str(_PROGRAM), str(node_modules(place.cache)), *arguments], {"REDIS_URL": place.redis_url}
    )


def _writer(place: Place, load: Load) -> Command:
    return _program(place, "produce", *load.arguments())


CONTESTANT: Final = Contestant(
    name="resumable_stream",
    title=f"resumable-stream {NODE_PACKAGES['resumable-stream']} (Node)",
    kind=Kind.PEER,
    server=lambda place, _load: _program(place, "serve", str(place.port)),
    writer=_writer,
    prepare=prepare_node,
)
