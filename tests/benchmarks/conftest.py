from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.plan import SMALL
from benchmarks.plant import Plant
from benchmarks.programs import divided_cores


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """Where small measurements take place; peers are not installed."""
    with divided_cores() as cores:
        yield Plant(SMALL, tmp_path, tmp_path / "cache", cores)
