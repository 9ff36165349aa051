"""What the hooks are told by those who write and read: ``streaming.telemetry``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.durable_answer import DurableAnswer
from streaming.entries import NewEntry, RunStatus
from streaming.identifiers import keys_of
from streaming.reading.liveness import interrupted
from streaming.store.run_states import Settlement
from streaming.telemetry import AttemptBegan, AttemptEnded, Telemetry, TerminalWritten
from streaming.writing.leases import LeaseKeeper
from streaming.writing.restorer import StreamRestorer
from tests.contract.conftest import TTL
from tests.contract.reading import BOUND, begin, read_all, text
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said


class Recorder(Telemetry):
    """Keeps what it was told, by hook."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, Any]] = []
        self.news = asyncio.Event()

    def of(self, name: str) -> list[Any]:
        """What one hook was told."""
        return [what for hook, what in self.told if hook == name]

    async def is_told(self, name: str) -> None:
        """Wait until one hook was told of something."""
        while not self.of(name):
            self.news.clear()
            await self.news.wait()


def _recording(name: str) -> Callable[..., None]:
    def hook(recorder: Recorder, *values: Any, **named: Any) -> None:
        recorder.told.append((name, values[0] if values else dict(named)))
        recorder.news.set()

    return hook


for _name in [name for name in vars(Telemetry) if not name.startswith(("_", "redis_"))]:
    setattr(Recorder, _name, _recording(_name))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def handler(redis: Redis, recorder: Recorder) -> AsyncIterator[RedisStreamResponseHandler]:
    """A handler whose telemetry is recorded."""
    made = RedisStreamResponseHandler(redis, TTL, telemetry=recorder)
    yield made
    await made.reader.close()


async def test_a_run(
    handler: RedisStreamResponseHandler, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Its begin, its appends, its end; and one line in the log."""
    caplog.set_level(logging.INFO)
    await handler.runs.register("c", "r", "Scripted", trace="00-of-the-request-01")
    await DurableConversation(handler, ScriptedAgent(*said("Hello", " world")), "c").run("r")
    [began] = recorder.of("attempt_began")
    assert (began.agent, began.attempt, began.traceparent) == ("Scripted", 1, "00-of-the-request-01")
    assert began.waited is not None
    assert 0 <= began.waited < 5
    assert recorder.of("terminal_written") == [TerminalWritten("Scripted", "completed", "")]
    [ended] = recorder.of("attempt_ended")
    assert (ended.outcome, ended.entries) == ("completed", 3)
    assert sum(recorder.of("appended")) == 3
    assert sum(recorder.of("buffered")) == 0
    lines = [message for message in caplog.messages if message.startswith("run ended")]
    assert [line.partition(" seconds=")[0] for line in lines] == [
        "run ended: conversation=c run=r agent=Scripted attempt=1 outcome=completed chunks=2 entries=3"
    ]


async def test_an_attempt_that_is_fenced(handler: RedisStreamResponseHandler, recorder: Recorder) -> None:
    """An execution whose run another has taken over is told as superseded, once; it is no end of the run."""
    gate = asyncio.Event()
    agent = ScriptedAgent(*said("one"), gate, *said("two"))
    running = DurableConversation(handler, agent, "c").start("r")
    async with asyncio.timeout(BOUND):
        await recorder.is_told("appended")
        await begin(handler, "c", "r")
        gate.set()
        await asyncio.wait({running})
        await recorder.is_told("attempt_ended")
    assert recorder.of("writer_refused") == ["attempt_fenced"]
    assert [each.outcome for each in recorder.of("attempt_ended")] == ["superseded"]
    assert recorder.of("terminal_written") == []
    assert sum(recorder.of("buffered")) == 0


async def test_an_execution_that_is_cancelled_from_outside(
    handler: RedisStreamResponseHandler, recorder: Recorder
) -> None:
    """One whose task is ended without a word counts as abandoned: no run seems to go on for ever."""
    running = DurableConversation(handler, ScriptedAgent(*said("one"), asyncio.Event()), "c").start("r")
    async with asyncio.timeout(BOUND):
        await recorder.is_told("appended")
        running.cancel()
        await asyncio.wait({running})
    assert [each.outcome for each in recorder.of("attempt_ended")] == ["abandoned"]


async def test_a_run_that_is_settled(handler: RedisStreamResponseHandler, recorder: Recorder) -> None:
    """Who ends a run that has lost its producer tells of its end, once."""
    await begin(handler, "c", "r")
    state = await handler.runs.state("c", "r")
    assert state is not None
    settled = [await handler.runs.settle(state, interrupted(), patience=None) for _ in range(2)]
    assert settled == [Settlement.SETTLED, Settlement.ENDED]
    [ended] = recorder.of("terminal_written")
    assert (ended.status, ended.code) == ("interrupted", "interrupted")


async def test_readers(handler: RedisStreamResponseHandler, recorder: Recorder, redis: Redis) -> None:
    """New ones, resumed ones, one that finds a hole and one whose cursor is gone."""
    attempt = await begin(handler, "c", "r")
    done = NewEntry(0, status=RunStatus.COMPLETED)
    ids = (await handler.runs.append(attempt, 0, [text("a"), text("b"), text("c"), done])).entry_ids
    await read_all(handler, "c")
    await read_all(handler, "c", ids[0])
    assert recorder.of("reader_opened") == [{"resumed": False}, {"resumed": True}]
    assert recorder.of("reader_closed") == [{"cut_short": False}] * 2
    await redis.xdel(keys_of("c").stream, ids[1])
    await read_all(handler, "c")
    assert recorder.of("gap_told") == ["hole"]
    await read_all(handler, "c", ids[1])
    await redis.xdel(keys_of("c").stream, ids[0])
    await read_all(handler, "c", ids[0])
    assert "cursor_gone" in recorder.of("gap_told")
    assert len(recorder.of("reader_closed")) == len(recorder.of("reader_opened"))


async def test_a_second_attempt_and_its_reset(
    handler: RedisStreamResponseHandler, recorder: Recorder
) -> None:
    """A reader is told to discard what the first attempt said; the trace goes on."""
    await handler.runs.register("c", "r", "Scripted", trace="00-t-s-01")
    first = await begin(handler, "c", "r")
    await handler.runs.append(first, 0, [text("lost")])
    await DurableConversation(handler, ScriptedAgent(*said("kept")), "c").run("r")
    await read_all(handler, "c")
    [began] = recorder.of("attempt_began")
    assert (began.attempt, began.waited, began.traceparent) == (2, None, "00-t-s-01")
    assert recorder.of("reset_told") == ["stored"]


async def test_a_trace_outlives_what_redis_forgets(
    handler: RedisStreamResponseHandler,
    recorder: Recorder,
    new_client: Callable[[], Redis],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who makes a run known again writes its trace too, and tells of it."""
    monkeypatch.setattr("streaming.writing.leases.RENEW_INTERVAL", timedelta(milliseconds=20))
    leases = LeaseKeeper(new_client, TTL, telemetry=recorder)
    leases.keep("c", "r", agent="Scripted", trace="00-t-s-01")
    try:
        async with asyncio.timeout(BOUND):
            while (state := await handler.runs.state("c", "r")) is None:  # noqa: ASYNC110 - another thread's doing
                await asyncio.sleep(0.01)
    finally:
        await asyncio.to_thread(leases.close)
    assert state.trace == "00-t-s-01"
    assert "forgotten" in recorder.of("lease_troubled")


async def test_a_stream_that_is_rebuilt(handler: RedisStreamResponseHandler, recorder: Recorder) -> None:
    """It is counted when it is written, not when it was there already."""

    async def find(_conversation: str, _run: str | None) -> DurableAnswer:
        return DurableAnswer(agent="Scripted", run="r", text="answer", ended=1, error=None, code=None)

    restorer = StreamRestorer(handler.runs, find)
    assert await restorer.restore("c", "r")
    assert await restorer.restore("c", "r")
    assert len(recorder.of("stream_restored")) == 1


def test_the_details_are_small() -> None:
    """What is told has ids, names and numbers; nothing that was said has a place in it."""
    fields = {name for details in (AttemptBegan, AttemptEnded, TerminalWritten) for name in details.__slots__}
    assert fields == {
        *("agent", "attempt", "code", "conversation_id", "entries", "outcome", "run", "seconds"),
        *("status", "traceparent", "waited"),
    }
