"""A Redis that a test may break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, redis_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with redis_server(tmp_path) as started:
        asyncio.run(started.start())
        yield started


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told of is not found by the look that readers have besides."""
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", timedelta(hours=1))
