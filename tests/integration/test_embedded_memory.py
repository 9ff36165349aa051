"""How the embedded Redis takes memory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from hosting.embedded.redis_server import EmbeddedRedis


@pytest.mark.skipif(sys.platform != "linux", reason="glibc and /proc are Linux's")
@pytest.mark.parametrize("own", [None, "glibc.malloc.tcache_count=9"])
def test_the_server_is_told_to_keep_memory_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    """The C library keeps many small pieces of memory, unless its user has set something."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if own is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", own)

    async def process() -> int:
        async with Redis.from_url(server.url) as redis:
            return int((await redis.info("server"))["process_id"])

    server = EmbeddedRedis(tmp_path)
    asyncio.run(server.start())
    environment = Path(f"/proc/{asyncio.run(process())}/environ").read_bytes().decode().split("\0")
    asyncio.run(server.stop())
    [told] = [each for each in environment if each.startswith("GLIBC_TUNABLES=")]
    assert told == f"GLIBC_TUNABLES={own or 'glibc.malloc.tcache_count=500'}"
