"""The inspector's page in a real browser, at a stream that would like to be markup."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from tests.service import PATIENCE, Service, running_service

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
KEY: Final = "a-key-that-opens-everything"
HOSTILE: Final = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may be looked into, with a key."""
    data_dir = tmp_path_factory.mktemp("inspected") / "data"
    with running_service(data_dir, INSPECT_PAGE="true", API_KEYS=KEY) as running:
        yield running


async def dom_of(url: str, profile: Path) -> str:
    """The page as it is once its requests are answered."""
    process = await asyncio.create_subprocess_exec(
        *(str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=4000", "--dump-dom", url),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    return out.decode()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_the_page_shows_a_conversation(inspected: Service, tmp_path: Path) -> None:
    """The page lists conversations and shows the chosen one; what a stream says becomes no markup."""
    async with Redis.from_url(inspected.redis_url) as redis:
        await redis.xadd(
            "agent-stream:hostile", {"text": "", "type": HOSTILE, "data": "{}", "sequence": "0", "run": "r"}
        )
        await redis.xadd(
            "agent-stream:hostile",
            {"text": "", "sequence": "2", "run": "r", "status": "failed", "error": HOSTILE, "code": "odd"},
        )
        await redis.expire("agent-stream:hostile", 60)
    shown = await dom_of(f"{inspected.url}/api/inspect?code={KEY}#hostile", tmp_path)
    assert 'aria-current="true"' in shown
    assert "failed · odd: &lt;img" in shown
    assert "It ended with the code odd" in shown
    assert "1 entry is missing" in shown
    assert "<img" not in shown
    assert "<title>Inspector</title>" in shown
