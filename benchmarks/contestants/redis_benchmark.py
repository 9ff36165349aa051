"""The floor below that: the vendor's own ``redis-benchmark``, plain ``XADD`` in pipelines of fifty.

    python -m benchmarks.contestants.redis_benchmark PORT STREAMS RATE SECONDS

It counts chunks and does not look at the clock: it is given about as many as it writes in the time.
"""

from __future__ import annotations

import csv
import resource
import shutil
import subprocess
import sys
from typing import Final

from benchmarks.contestants.contestant import Contestant, Kind, needs_on_path, own_program
from benchmarks.contestants.plain_redis import PIPELINE, stream_key
from benchmarks.loads.pacing import pace_of, say_outcome, wait_for_go

_PROGRAM: Final = "redis-benchmark"
_CLIENTS: Final = 50
#: About what it writes in a second, for how long it is to take.
_ABOUT: Final = 400_000


def main() -> None:
    """Write as the command line says."""
    port, *arguments = sys.argv[1:]
    pace = pace_of(arguments)
    chunks = int(_ABOUT * pace.seconds)
    command = [shutil.which(_PROGRAM) or _PROGRAM, "-p", port, "-c", str(_CLIENTS), "-P", str(PIPELINE)]
    command += ["-n", str(chunks), "--csv", "XADD", stream_key(0), "*", "text", "@1 12345678901234;"]
    command += ["sequence", "1", "timestamp", "1795215680986"]
    wait_for_go()
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *_, row = csv.DictReader(told.splitlines())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = chunks / float(row["rps"])
    say_outcome(sent=[chunks], took=took, cpu=used.ru_utime + used.ru_stime)


CONTESTANT: Final = Contestant(
    name="redis_benchmark",
    title="plain XADD, pipelines of 50 (redis-benchmark)",
    kind=Kind.FLOOR,
    writer=lambda place, load: own_program(
        "benchmarks.contestants.redis_benchmark", place.redis_port, *load.arguments()
    ),
    prepare=needs_on_path(_PROGRAM),
)


if __name__ == "__main__":
    main()
