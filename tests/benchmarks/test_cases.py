"""The benches measure what they say they do; how fast it is, no test judges."""

from __future__ import annotations

import sys

import pytest

from benchmarks.cases import live, replay, runs, write
from benchmarks.cases.case import FIGURES
from benchmarks.cases.registry import all_cases
from benchmarks.contestants import bare_sockets, blocking_readers, ours
from benchmarks.contestants.contestant import Contestant, Load
from benchmarks.loads.replayer import missing
from benchmarks.plan import FULL, SMALL
from benchmarks.plant import Plant

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are measured by /proc: Linux-only")

_LIVE = Load(streams=4, readers=3, rate=200, seconds=0.3)


@pytest.mark.parametrize(
    "contestant",
    [ours.CONTESTANT, blocking_readers.CONTESTANT, bare_sockets.CONTESTANT],
    ids=lambda one: one.name,
)
def test_every_reader_gets_every_chunk(contestant: Contestant, plant: Plant) -> None:
    """Each reader of each stream has every chunk once, in order, with its time, whoever serves."""
    figures = live.measure(contestant, plant, _LIVE)
    assert figures["lost"] == 0
    assert 0 < figures["kept"] <= 100
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["longest_ms"]
    assert figures.keys() <= FIGURES.keys()


def test_the_callback_is_timed_until_redis_has_the_chunk(plant: Plant) -> None:
    """Written at a pace, all chunks go through the callback and are acknowledged, with their times."""
    figures = write.measure(ours.CONTESTANT, plant, Load(streams=5, rate=200, seconds=0.4))
    assert figures["kept"] == 100
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["redis_us"] > 0


def test_a_finished_stream_is_read_again_whole(plant: Plant) -> None:
    """An answer written through the callback comes back over HTTP with every chunk in order."""
    figures = replay.measure(ours.CONTESTANT, plant, chunks=300, times=2)
    assert figures["lost"] == 0
    assert figures["first_byte_ms"] > 0


def test_runs_are_whole(plant: Plant) -> None:
    """Runs at once on the embedded hub start after they were posted, and each stream has the whole answer."""
    figures = runs.measure(plant, at_once=3, times=1)
    assert figures["lost"] == 0
    assert figures["start_p50_ms"] > 0


def test_what_is_there_already_is_not_read(plant: Plant) -> None:
    """Where a stream has entries of earlier runs, readers are given the new one's alone."""
    [case] = [case for case in all_cases(SMALL) if case.name == "flat_length"]
    figures = case.variants[str(SMALL.flat_lengths[-1])].measure(plant)
    assert figures["lost"] == 0
    assert figures["received_per_s"] > 0


def test_a_missing_chunk_is_noticed() -> None:
    """Each chunk that is not where it belongs counts, and so does each that is not there."""
    body = b"".join(b"data: @%d 1;\n\n" % number for number in (0, 1, 3))
    assert missing(body, 3) == 1
    assert missing(body, 4) == 2


def test_cases_have_names_of_their_own() -> None:
    """Each case is told by its name; each plan has the same ones."""
    names = [case.name for case in all_cases(FULL)]
    assert len(names) == len(set(names))
    assert names == [case.name for case in all_cases(SMALL)]
