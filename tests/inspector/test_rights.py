"""The rights in Redis that docs/inspect.md names are enough to look, and let their user change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from tests.contract.reading import complete_run
from tests.inspector.test_commands import inspect
from tests.redis_server import RedisServer, redis_server
from tests.service import ROOT

DOCUMENTATION: Final = ROOT / "docs" / "inspect.md"
PASSWORD: Final = "a-password"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis with a conversation and the user of the documentation."""
    lines = DOCUMENTATION.read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("ACL SETUSER inspector"))
    with redis_server(tmp_path / "redis") as started:
        await started.start()
        async with RedisStreamResponseHandler(connect(started.url)) as handler:
            await complete_run(handler, "c", "r", "one", "two")
        async with started.client() as redis:
            rules = ["reset", *line.replace("PASSWORD", PASSWORD).split()[3:]]
            await redis.execute_command("ACL", "SETUSER", "inspector", *rules)  # type: ignore[no-untyped-call]
            await redis.execute_command("ACL", "SETUSER", "blind", *rules, "-scan")  # type: ignore[no-untyped-call]
        yield started


def signed_in(server: RedisServer, user: str = "inspector") -> dict[str, Any]:
    return {"REDIS_CONNECTION_STRING": f"redis://{user}:{PASSWORD}@127.0.0.1:{server.port}/0"}


async def test_the_documented_rights_are_enough(server: RedisServer) -> None:
    """list, show, follow, export and check need no other rights; replay is refused and writes nothing."""
    commands = (("list",), ("show", "c"), ("follow", "c"), ("export", "c"), ("check", "--all"))
    said = await asyncio.gather(*(inspect(None, *each, **signed_in(server)) for each in commands))
    assert [err for _, err in said if err] == []
    assert all("c" in out for out, _ in said)
    async with server.client() as redis:
        assert await redis.execute_command("ACL", "LOG") == []  # type: ignore[no-untyped-call]
        before = sorted(await redis.keys())
        _, complaint = await inspect(None, "replay", "c", "--into", "d", status=4, **signed_in(server))
        assert sorted(await redis.keys()) == before
    assert "docs/inspect.md names the rights" in complaint


async def test_a_missing_right_is_said(server: RedisServer) -> None:
    """A user who may not look is told where the rights are named."""
    _, complaint = await inspect(None, "list", status=4, **signed_in(server, "blind"))
    assert "docs/inspect.md names the rights" in complaint
    async with Redis.from_url(server.url) as redis:
        assert await redis.xlen("agent-stream:c") == 3
