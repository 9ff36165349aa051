"""How much is measured: all of it, in two minutes, or just enough to see that it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the cases. Rates are chunks a second over all streams, durations are in seconds."""

    name: str
    #: How often each contestant of a case is measured, in turns: A, B, A, B.
    rounds: int
    #: The same for cases that take long.
    long_rounds: int
    write_seconds: float
    paced_runs: int
    paced_rate: float
    live_seconds: float
    live_streams: int
    live_rate: float
    live_rate_high: float
    fan_readers: int
    fan_rate: float
    many_readers: int
    many_rate: float
    client_rate: float
    workers_rate: float
    replay_chunks: int
    replay_times: int
    long_replay_chunks: int
    runs_at_once: int
    runs_one_by_one: int
    flat_lengths: tuple[int, ...]
    flat_conversations: tuple[int, ...]
    flat_readers: int
    flat_seconds: float
    starts: int


#: ``make bench``: a quarter of an hour.
FULL: Final = Plan(
    name="full",
    rounds=3,
    long_rounds=2,
    write_seconds=2,
    paced_runs=1_000,
    paced_rate=20_000,
    live_seconds=5,
    live_streams=1_000,
    live_rate=10_000,
    live_rate_high=30_000,
    fan_readers=1_000,
    fan_rate=50,
    many_readers=10_000,
    many_rate=10_000,
    client_rate=100_000,
    workers_rate=5_000,
    replay_chunks=10_000,
    replay_times=20,
    long_replay_chunks=1_000_000,
    runs_at_once=200,
    runs_one_by_one=20,
    flat_lengths=(0, 100_000, 1_000_000),
    flat_conversations=(0, 100_000),
    flat_readers=100,
    flat_seconds=4,
    starts=2,
)

#: ``make bench-quick``: two minutes. Shorter, seldomer, and without the largest.
QUICK: Final = Plan(
    name="quick",
    rounds=1,
    long_rounds=1,
    write_seconds=0.7,
    paced_runs=1_000,
    paced_rate=20_000,
    live_seconds=1.5,
    live_streams=1_000,
    live_rate=10_000,
    live_rate_high=30_000,
    fan_readers=1_000,
    fan_rate=50,
    many_readers=5_000,
    many_rate=10_000,
    client_rate=100_000,
    workers_rate=5_000,
    replay_chunks=10_000,
    replay_times=5,
    long_replay_chunks=200_000,
    runs_at_once=200,
    runs_one_by_one=5,
    flat_lengths=(0, 200_000),
    flat_conversations=(0, 20_000),
    flat_readers=100,
    flat_seconds=1.5,
    starts=1,
)

#: For tests: whether it works, whatever the figures.
SMALL: Final = Plan(
    name="small",
    rounds=1,
    long_rounds=1,
    write_seconds=0.2,
    paced_runs=5,
    paced_rate=200,
    live_seconds=0.4,
    live_streams=5,
    live_rate=200,
    live_rate_high=400,
    fan_readers=5,
    fan_rate=50,
    many_readers=20,
    many_rate=200,
    client_rate=1_000,
    workers_rate=200,
    replay_chunks=300,
    replay_times=2,
    long_replay_chunks=3_000,
    runs_at_once=5,
    runs_one_by_one=1,
    flat_lengths=(0, 1_000),
    flat_conversations=(0, 100),
    flat_readers=5,
    flat_seconds=0.4,
    starts=1,
)

PLANS: Final = {plan.name: plan for plan in (FULL, QUICK, SMALL)}
