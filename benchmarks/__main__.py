"""Measure from the command line: ``python -m benchmarks --streams 1000 --readers 1 --rate 5000``."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from dataclasses import asdict

from benchmarks.live import Load, Result, measure


def main() -> int:
    """Measure what the command line describes. Returns the exit status: 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--readers", type=int, default=1, help="of each stream")
    parser.add_argument("--rate", type=float, default=5_000, help="chunks a second over all streams")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--times", type=int, default=3, help="of which the medians are told")
    options = parser.parse_args()
    load = Load(options.streams, options.readers, options.rate, options.seconds)
    results = [asyncio.run(measure(load)) for _ in range(options.times)]
    print(json.dumps(_medians(results), indent=2))
    return 0 if all(result.is_whole for result in results) else 1


def _medians(results: list[Result]) -> dict[str, float]:
    values = [asdict(result) for result in results]
    return {name: round(statistics.median(each[name] for each in values), 2) for name in values[0]}


if __name__ == "__main__":
    sys.exit(main())
