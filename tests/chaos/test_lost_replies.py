"""Redis executed the command, and its reply was lost, cut or late: docs/reliability.md, 1 and 2."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import COMMAND_TIMEOUT
from tests.chaos.redis_load import Load, assert_whole, handler_on, leases_on, read
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said
from tests.fault_proxy import Cut, Delay, Fault, FaultProxy, Swallow, fault_proxy
from tests.redis_server import redis_server

#: A command's time limit in these tests: a lost reply costs so much.
SHORT: Final = timedelta(milliseconds=200)
#: Longer than the time limit.
LATE: Final = SHORT * 1.5
#: More bytes than the reply of an append of one entry has.
REPLY_BYTES: Final = 60


@pytest.fixture
async def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """A proxy before a server of its own, whose clients wait a short time for a reply."""
    assert SHORT < COMMAND_TIMEOUT
    monkeypatch.setattr("streaming.connections.COMMAND_TIMEOUT", SHORT)
    with redis_server(tmp_path) as server:
        await server.start()
        async with fault_proxy(server.port) as made:
            yield made


@pytest.fixture
async def handler(proxy: FaultProxy) -> AsyncIterator[RedisStreamResponseHandler]:
    """A handler behind the proxy."""
    async with handler_on(proxy.url) as made:
        yield made


def is_script(words: Sequence[bytes]) -> bool:
    """Whether a command runs one of our scripts: all that a writer sends."""
    return words[0] == b"EVALSHA"


async def write_and_read(
    handler: RedisStreamResponseHandler, conversation: str, texts: Sequence[str]
) -> None:
    """One whole run; its stream must hold every entry once."""
    run = DurableConversation(handler, ScriptedAgent(*said(*texts)), conversation)
    await run.start("r")
    assert_whole(await read(handler, conversation), "".join(texts))


@pytest.mark.parametrize("fault", [Cut(), Cut(7), Swallow(), Delay(LATE)])
@pytest.mark.parametrize("times", [1, 3])
async def test_every_reply_of_a_run_is_lost(
    handler: RedisStreamResponseHandler,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    times: int,
) -> None:
    """Each script of a run is executed with its reply lost, once or thrice: every entry is stored once."""
    monkeypatch.setattr("streaming.writing.writer.BATCH_ENTRIES", 1)
    sent: Counter[tuple[bytes, ...]] = Counter()

    def rule(words: Sequence[bytes]) -> Fault | None:
        sent[tuple(words)] += 1
        return fault if is_script(words) and sent[tuple(words)] <= times else None

    proxy.rule = rule
    await write_and_read(handler, "c", ["one ", "two"])
    # The run's registration and its beginnings, two chunks and the end.
    assert proxy.faults >= 5 * times


async def test_a_reply_is_cut_at_every_byte(
    handler: RedisStreamResponseHandler, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in the reply of an append the connection breaks, the stream holds every entry once."""
    monkeypatch.setattr("streaming.writing.writer.BATCH_ENTRIES", 1)
    # The scripts are known to Redis from here on.
    await write_and_read(handler, "first", ["text"])
    for after in range(REPLY_BYTES):
        left = 2

        def rule(words: Sequence[bytes], after: int = after) -> Fault | None:
            nonlocal left
            if is_script(words) and b"chunk" in words and left:
                left -= 1
                return Cut(after)
            return None

        proxy.rule = rule
        await write_and_read(handler, f"c{after}", ["one ", "chunk", " three"])
        assert left < 2


@pytest.mark.parametrize("seed", range(2))
async def test_any_reply_is_cut_anywhere(
    handler: RedisStreamResponseHandler, proxy: FaultProxy, seed: int
) -> None:
    """One reply in ten is cut at some byte, of writers, readers and leases, while all connections break."""
    chance = random.Random(seed)

    def rule(_words: Sequence[bytes]) -> Fault | None:
        return Cut(chance.randint(0, 200)) if chance.random() < 0.1 else None

    async def cut_all() -> None:
        proxy.rule = rule
        proxy.cut_all()

    async with leases_on(proxy.url) as leases:
        given = await Load(handler, leases, runs=20, chunks=60).under(cut_all)
    # Fewer than there are commands: one that is cut takes all that share its connection.
    assert proxy.faults > 20
    assert {chunk.type for chunks in given.values() for chunk in chunks} == {None}
