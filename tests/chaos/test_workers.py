"""The process that executes a run freezes, dies, or outlives its own run: docs/reliability.md, 3 and 8."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from streaming.entries import RunStatus
from streaming.identifiers import keys_of
from streaming.store.run_store import LEASE
from tests.chaos.redis_load import assert_whole, handler_on, leases_on, read
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said
from tests.redis_server import RedisServer, redis_server
from tests.service import PATIENCE, ROOT, SLOW, connect_http, eventually, running_service, start_run

#: How often readers look in these tests, instead of every five seconds.
LOOK: Final = timedelta(seconds=1)


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own; killed at the end."""
    command = [sys.executable, "-m", "tests.chaos.zombie", url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def until_written(server: RedisServer, conversation: str, count: int) -> None:
    """Wait until a stream has so many entries."""
    async with server.client() as redis:

        async def is_written() -> bool:
            return bool(await redis.xlen(keys_of(conversation).stream) >= count)

        await eventually(is_written, f"{count} entries")


async def test_a_zombie_is_refused_and_stops(tmp_path: Path) -> None:
    """A worker that froze in mid-run and wakes up after its run was executed elsewhere leaves no trace."""
    with redis_server(tmp_path) as server:
        await server.start()
        with worker(server.url) as zombie:
            await until_written(server, "c", 50)
            zombie.send_signal(signal.SIGSTOP)
            texts = [f"answer:{number} " for number in range(100)]
            async with handler_on(server.url) as handler, leases_on(server.url) as leases:
                reading = asyncio.create_task(read(handler, "c"))
                conversation = DurableConversation(handler, ScriptedAgent(*said(*texts)), "c", leases)
                # It wakes up while the other execution is about to begin, to write or to end.
                running = conversation.start("r")
                await until_written(server, "c", 52)
                zombie.send_signal(signal.SIGCONT)
                await running
                output, _ = await asyncio.to_thread(zombie.communicate, timeout=PATIENCE)
                for chunks in (await reading, await read(handler, "c")):
                    assert_whole(chunks, "".join(texts))
                    assert [chunk.type for chunk in chunks].count("reset") == 1
                    assert not [chunk for chunk in chunks if chunk.attempt == 2 and "zombie" in str(chunk)]
    assert output.decode().split("\n")[0] == "stopped kept=False leases=[]"
    assert zombie.returncode == 0


async def test_a_reader_elsewhere_outlives_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is killed in mid-run; a reader in another process that waits is told: interrupted."""
    monkeypatch.setattr("streaming.reading.liveness.LIVENESS_INTERVAL", LOOK)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", LOOK)
    settings = {"REDIS_CONNECTION_STRING": "", "DEMO_MODEL_WORDS_PER_SECOND": SLOW}
    with redis_server(tmp_path / "redis") as server:
        await server.start()
        settings["REDIS_CONNECTION_STRING"] = server.url
        with running_service(tmp_path / "data", **settings) as service:
            async with connect_http(service) as http:
                run = await start_run(http)
            conversation, name = str(run["conversation_id"]), str(run["correlation_id"])
            async with handler_on(server.url) as handler:
                reading = asyncio.create_task(read(handler, conversation, name))
                await until_written(server, conversation, 3)
                service.stop(signal.SIGKILL)
                async with asyncio.timeout((LEASE + 4 * LOOK).total_seconds() + PATIENCE):
                    chunks = await reading
                again = await read(handler, conversation, name)
    assert (chunks[-1].status, chunks[-1].code) == (RunStatus.INTERRUPTED, "interrupted")
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert again == chunks
