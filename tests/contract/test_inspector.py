"""Looking at what is stored, recordings, and replaying them: the same on every server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from inspector.examination import Examination, examine
from inspector.following import follow, reader_that_only_looks
from inspector.recording import (
    Recording,
    lines_of,
    record_from_file,
    record_from_redis,
)
from inspector.replay import Replayed, Replayer
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry, RunStatus, StreamChunk
from streaming.errors import ConversationNotFound, NotAStream
from streaming.identifiers import FIRST, keys_of
from streaming.store.conversations import Conversations
from tests.contract.conftest import TTL
from tests.contract.reading import BOUND, COMPLETED, begin, complete_run, read_all, text, text_of, until

Replay = Callable[..., Coroutine[Any, Any, Replayed]]
#: No text, to be kept as it is.
BYTES: Final = b"\xff\x00half \xf0\x9f"


@pytest.fixture
def conversations(handler: RedisStreamResponseHandler) -> Conversations:
    """What is stored there."""
    return handler.runs.conversations


async def recorded(conversations: Conversations, conversation: str) -> Recording:
    return await record_from_redis(conversations, conversation)


async def examined(conversations: Conversations, conversation: str) -> Examination:
    return await examine(await recorded(conversations, conversation), keep_said=True)


async def test_conversations_are_found(
    redis: Redis, handler: RedisStreamResponseHandler, conversations: Conversations
) -> None:
    """Every conversation is found once, by whatever of its keys there are; keys of others are not."""
    await complete_run(handler, "complete", "r1", "a")
    await complete_run(handler, "complete", "r2", "b")
    await handler.runs.register("pending", "r", "Agent")
    await redis.xadd("agent-stream:foreign", {"text": "x"})
    await redis.set("agent-stream:not foreign", "no valid id")
    await redis.set("other-foreign", 1)
    found = await conversations.find(most_keys=10_000)
    assert sorted(found.conversation_ids) == ["complete", "foreign", "pending"]
    assert found.is_whole
    glances = {
        glance.conversation_id: glance for glance in await conversations.glance(found.conversation_ids)
    }
    complete, pending, foreign = (glances[name] for name in ("complete", "pending", "foreign"))
    assert (complete.entries, complete.latest_run and complete.latest_run.run) == (4, "r2")
    assert 0 < complete.ttl <= TTL / timedelta(milliseconds=1)
    assert complete.latest == complete.newest.milliseconds
    assert (pending.entries, pending.newest) == (0, FIRST)
    assert pending.latest_run is not None
    assert pending.latest_run.state == await handler.runs.state("pending", "r")
    assert pending.latest_run.lease is not None
    assert pending.latest_run.lease > await conversations.now()
    assert (foreign.entries, foreign.ttl, foreign.latest_run) == (1, -1, None)


async def test_a_walk_is_bounded(
    redis: Redis, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk over more keys than it may look at ends early, and says so."""
    monkeypatch.setattr("streaming.store.conversations.SCAN_STEP", 10)
    for number in range(300):
        await redis.set(f"foreign:{number}", 1)
    assert not (await conversations.find(most_keys=20)).is_whole
    assert (await conversations.find(most_keys=10_000)).is_whole


async def test_what_is_gone_or_something_else(redis: Redis, conversations: Conversations) -> None:
    """A conversation that has gone is left out; a key of another kind is told of, and can't be examined."""
    await redis.set("agent-stream:foreign", "a string", ex=100)
    glances = await conversations.glance(["gone", "foreign"])
    assert [(glance.conversation_id, glance.is_stream) for glance in glances] == [("foreign", False)]
    with pytest.raises(ConversationNotFound):
        await recorded(conversations, "gone")
    assert [each.code for each in (await examined(conversations, "foreign")).findings] == ["not_a_stream"]
    with pytest.raises(NotAStream):
        async with aclosing(reading(redis, "foreign")) as told:
            await anext(told)


async def reading(redis: Redis, conversation: str) -> AsyncGenerator[str, None]:
    handler = RedisStreamResponseHandler(redis, TTL)
    reader = reader_that_only_looks(handler.runs)
    try:
        events = follow(handler.runs, reader, conversation, run=None, forever=False, said=False)
        async with aclosing(events):
            async for told in events:
                yield told.step.kind.value if told.step is not None else ""
    finally:
        await reader.close()


async def test_a_run_is_followed_to_its_end(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """A follower hears of steps as they come, and leaves at the end of the run."""
    attempt = await begin(handler, "c", "r")
    call = NewEntry(1, type="tool_call", data={"call_id": "1", "name": "weather"})
    await handler.runs.append(attempt, 0, [text("a"), call])
    heard: list[str] = []
    async with asyncio.timeout(BOUND), aclosing(reading(redis, "c")) as steps:
        async for step in steps:
            heard.append(step)
            if step == "tool call":
                await handler.runs.append(attempt, 2, [text("b"), COMPLETED])
    assert [step for step in heard if step] == ["text", "tool call", "text", "end"]


async def test_a_follower_ends_no_run(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose producer is gone is left as it is: whoever only looks must not end it."""
    soon = timedelta(milliseconds=20)
    for name in ("following.TELL_EVERY", "liveness.LIVENESS_INTERVAL", "patrol.LIVENESS_INTERVAL"):
        package = "inspector" if name.startswith("following") else "streaming.reading"
        monkeypatch.setattr(f"{package}.{name}", soon)
    await begin(handler, "c", "r")
    await redis.hset(keys_of("c").run("r"), "lease", "1")
    async with asyncio.timeout(BOUND), aclosing(reading(redis, "c")) as steps:
        # For longer than a reader takes to give a run up.
        for _ in range(4):
            assert await anext(steps) == ""
    state = await handler.runs.state("c", "r")
    assert state is not None
    assert state.status is RunStatus.RUNNING


async def exported(recording: Recording, path: Path) -> str:
    lines = "".join([line async for line in lines_of(recording)])
    write(path, lines)
    return lines


def write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


async def test_a_recording_is_lossless(
    redis: Redis, handler: RedisStreamResponseHandler, conversations: Conversations, tmp_path: Path
) -> None:
    """A file has every byte of every entry, and every state; what is read from it is written as the same."""
    await complete_run(handler, "c", "r", "line\nend\r\u2028", "🗼", "")
    await redis.xadd("agent-stream:c", {"text": "ü", "unknown": "field", "run": "other"})
    await redis.xadd("agent-stream:c", {b"text": BYTES, b"sequence": b"\xfe"})
    first = await exported(await recorded(conversations, "c"), tmp_path / "c.jsonl")
    read = await record_from_file(tmp_path / "c.jsonl")
    assert await exported(read, tmp_path / "again.jsonl") == first
    assert [entry async for entry in read.raw_entries()] == await conversations.entries_after("c", FIRST)
    assert read.stored.runs == (await recorded(conversations, "c")).stored.runs
    assert [json.loads(line).get("fields", {}).get("text") for line in first.splitlines()][2:5] == [
        "line\nend\r\u2028",
        "🗼",
        "",
    ]
    assert (await examine(read)).entries == 6


@pytest.fixture
def replayed(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis], conversations: Conversations
) -> Replay:
    """Replays a conversation into another."""

    async def replay(source: str, into: str, speed: float = 0, run: str | None = None) -> Replayed:
        replayer = Replayer(handler.runs, new_client, TTL, speed=speed)
        return await replayer.play(await recorded(conversations, source), into, run=run)

    return replay


def essence(chunks: list[StreamChunk]) -> list[tuple[object, ...]]:
    """What a reader sees, but for ids and times."""
    return [
        (chunk.text, chunk.type, chunk.data, chunk.attempt, chunk.sequence, chunk.status, chunk.error)
        for chunk in chunks
    ]


async def test_a_replay_is_the_same_run_again(
    handler: RedisStreamResponseHandler, conversations: Conversations, replayed: Replay
) -> None:
    """A replayed run has the same entries, attempts and end, and breaks no invariant."""
    first = await begin(handler, "c", "r", "one")
    await handler.runs.append(first, 0, [text("half"), NewEntry(1, type="odd", data="x")])
    second = await begin(handler, "c", "r", "two")
    failed = NewEntry(1, status=RunStatus.FAILED, error="No.", code="agent_failed")
    await handler.runs.append(second, 1, [text("whole"), failed])
    await complete_run(handler, "c", "later", "answer")
    assert await replayed("c", "new") == Replayed(runs=2, entries=7, was_stopped=False)
    assert essence(await read_all(handler, "new", "0")) == essence(await read_all(handler, "c", "0"))
    assert text_of(await read_all(handler, "new")) == "answer"
    told = await examined(conversations, "new")
    assert (list(told.findings), [run.status for run in told.runs]) == (
        [],
        [RunStatus.FAILED, RunStatus.COMPLETED],
    )
    assert [run.record.fields["agent"] for run in told.runs if run.record] == ["Agent", "Agent"]


async def test_one_run_or_an_end_that_is_missing(
    handler: RedisStreamResponseHandler, conversations: Conversations, replayed: Replay
) -> None:
    """One run can be replayed alone; one without an end ends as interrupted; a foreign one has a name."""
    await complete_run(handler, "c", "r1", "first")
    attempt = await begin(handler, "c", "r2")
    await handler.runs.append(attempt, 0, [text("second")])
    await handler.write_chunk("foreign", "third", 0)
    await replayed("c", "new", 0, "r2")
    chunks = await read_all(handler, "new", "0")
    assert (text_of(chunks), chunks[-1].status) == ("second", RunStatus.INTERRUPTED)
    await replayed("foreign", "new-foreign")
    (run,) = (await examined(conversations, "new-foreign")).runs
    assert run.record is not None
    assert run.record.fields["agent"] == "Replay"


async def test_a_replay_keeps_the_pace(redis: Redis, conversations: Conversations, replayed: Replay) -> None:
    """Entries come as long after the first as they were recorded, divided by the speed: never sooner."""
    for at in (0, 1_000, 3_000):
        await redis.xadd("agent-stream:foreign", {"text": "x", "timestamp": str(at)})
    await redis.xadd("agent-stream:foreign", {"done": "true", "timestamp": "4000"})
    began = await conversations.now()
    await replayed("foreign", "new", 10)
    chunks = [chunk async for chunk in (await recorded(conversations, "new")).entries()]
    after = [chunk.id.milliseconds - began for chunk in chunks]
    # The clocks here and there are read by the millisecond.
    assert all(came > due - 5 for came, due in zip(after, (0, 100, 300, 400), strict=True)), after
    # How late they are is the machine's matter, unless they are not faster at all.
    assert after[-1] < 4_000


async def test_a_replay_can_be_stopped(
    redis: Redis, handler: RedisStreamResponseHandler, replayed: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replayed run is stopped like any other, in the middle of a pause, and ends as cancelled."""
    monkeypatch.setattr("streaming.writing.leases.RENEW_INTERVAL", timedelta(milliseconds=20))
    for at in (0, 600_000):
        await redis.xadd("agent-stream:foreign", {"text": "x", "timestamp": str(at)})
    playing = asyncio.create_task(replayed("foreign", "new", 1))

    async def has_begun() -> bool:
        state = await handler.runs.latest_run("new")
        return state is not None and state.entries > 0

    await until(has_begun)
    latest = await handler.runs.latest_run("new")
    assert latest is not None
    await handler.runs.request_cancel("new", latest.run)
    async with asyncio.timeout(BOUND):
        assert (await playing).was_stopped
    assert (await read_all(handler, "new"))[-1].status is RunStatus.CANCELLED


async def test_a_replay_that_is_broken_off(
    redis: Redis, handler: RedisStreamResponseHandler, replayed: Replay
) -> None:
    """A replay whose program is interrupted ends its run as cancelled, and leaves no task or lease behind."""
    for at in (0, 600_000):
        await redis.xadd("agent-stream:foreign", {"text": "x", "timestamp": str(at)})
    before = asyncio.all_tasks()
    playing = asyncio.create_task(replayed("foreign", "new", 1))

    async def has_begun() -> bool:
        state = await handler.runs.latest_run("new")
        return state is not None and state.entries > 0

    await until(has_begun)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert (await read_all(handler, "new"))[-1].status is RunStatus.CANCELLED
    of_the_connection = ("stream-", "redis-")
    assert {
        task for task in asyncio.all_tasks() - before if not task.get_name().startswith(of_the_connection)
    } == set()
