"""The floor of writing: plain ``XADD`` in pipelines of fifty, over one connection of redis-py.

python -m benchmarks.contestants.plain_redis REDIS_URL STREAMS RATE SECONDS
"""

from __future__ import annotations

import sys
import time
from typing import Final

from redis import Connection, Redis

from benchmarks.contestants.contestant import Contestant, Kind, own_program
from benchmarks.loads.pacing import (
    TICK,
    Pace,
    due,
    pace_of,
    say_outcome,
    stamped,
    stream_name,
    wait_for_go,
)

_MODULE: Final = "benchmarks.contestants.plain_redis"
#: Commands of a round trip.
PIPELINE: Final = 50


def stream_key(number: int) -> str:
    """Where naive contestants keep a stream."""
    return f"agent-stream:{stream_name(number)}"


class PlainWriter:
    """Appends without asking anything."""

    def __init__(self, connection: Connection, streams: int) -> None:
        self._connection = connection
        self._keys = [stream_key(number) for number in range(streams)]
        self.sent = [0] * streams
        self._created = 0

    def create(self) -> None:
        """Append a text without any to each stream: there is to be something to follow."""
        for key in self._keys:
            self._connection.send_command(*_entry(key, "", 0))  # type: ignore[no-untyped-call]
            self._connection.read_response()
        self._created = 1

    def append(self, streams: list[int]) -> None:
        """Append a chunk that is made now to each of these streams, in one round trip."""
        commands = []
        for stream in streams:
            number = self.sent[stream]
            commands.append(_entry(self._keys[stream], stamped(number), self._created + number))
            self.sent[stream] = number + 1
        packed = self._connection.pack_commands(commands)  # type: ignore[no-untyped-call]
        self._connection.send_packed_command(packed)  # type: ignore[no-untyped-call]
        for _ in commands:
            self._connection.read_response()

    def write(self, pace: Pace) -> None:
        """Write at a rate, or as fast as it goes."""
        began, done = time.monotonic(), 0
        if not pace.rate:
            while time.monotonic() - began < pace.seconds:
                self.append([(done + place) % pace.streams for place in range(PIPELINE)])
                done += PIPELINE
            return
        while done < int(pace.rate * pace.seconds):
            streams = list(due(pace, began, done))
            for first in range(0, len(streams), PIPELINE):
                self.append(streams[first : first + PIPELINE])
            done += len(streams)
            time.sleep(TICK)


def _entry(key: str, text: str, sequence: int) -> tuple[str | int, ...]:
    fields = ("text", text, "sequence", sequence, "timestamp", time.time_ns() // 1_000_000)
    return ("XADD", key, "*", *fields)


def main() -> None:
    """Write as the command line says."""
    pace = pace_of(sys.argv[2:])
    with Redis.from_url(sys.argv[1]) as redis:
        connection = redis.connection_pool.get_connection()
        writer = PlainWriter(connection, pace.streams)
        if pace.rate:
            writer.create()
        wait_for_go()
        began, began_cpu = time.monotonic(), time.process_time()
        writer.write(pace)
        took, cpu = time.monotonic() - began, time.process_time() - began_cpu
        redis.connection_pool.release(connection)
    say_outcome(sent=writer.sent, took=took, cpu=cpu)


CONTESTANT: Final = Contestant(
    name="plain_xadd",
    title="plain XADD, pipelines of 50 (redis-py)",
    kind=Kind.FLOOR,
    writer=lambda place, load: own_program(_MODULE, place.redis_url, *load.arguments()),
)


if __name__ == "__main__":
    main()
