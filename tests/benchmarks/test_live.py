"""The benches measure what they say they do; how fast it is, no test judges."""

from __future__ import annotations

import sys

import pytest

from benchmarks.live import Load, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are measured by /proc: Linux-only")


async def test_every_reader_gets_every_chunk() -> None:
    """A small run is whole: each reader of each stream has every chunk once, in order, with its time."""
    result = await measure(Load(streams=5, readers=3, rate=200, seconds=1))
    assert result.is_whole
    assert result.sent > 100
    assert result.received == result.sent * 3
    assert 0 < result.p50 <= result.p99 <= result.longest
    assert result.redis_connections > 0
