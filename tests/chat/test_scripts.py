"""The page's parts that know no page, under Node."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.clients.test_javascript import run_node


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("suite", sorted(Path(__file__).parent.glob("*.test.js")), ids=lambda path: path.name)
async def test_node(suite: Path) -> None:
    """Conversations and growing text are what their own tests say."""
    status, said = await run_node("--test", "--test-reporter=spec", suite)
    assert status == 0, said
    assert "✔" in said
