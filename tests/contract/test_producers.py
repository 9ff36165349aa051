"""Who may write a run, and whose answer is kept, when executions meet: docs/protocol.md, section 3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from bridges.event_stream import RunRecording
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import RunStatus
from streaming.errors import AttemptFenced, RunEnded, RunLost, WriterRefused
from streaming.identifiers import keys_of
from streaming.reading.liveness import interrupted
from streaming.store.run_states import Forgotten
from streaming.store.run_store import RunStore
from streaming.writing.leases import LeaseKeeper
from streaming.writing.run_control import RunControl, StopReason
from streaming.writing.writer import RunWriter
from tests.appending import sending_by
from tests.contract.conftest import TTL
from tests.contract.reading import COMPLETED, begin, read_all, text, text_of, until
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said


class CountedRenewals:
    """Counts the rounds of the keepers of leases, on whichever thread they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._done = 0
        send_renew = RunStore.send_renew

        def counted(store: RunStore, conversation_id: str, run: str, attempt: int, on_outcome: Any) -> None:
            def take(renewed: Any) -> None:
                on_outcome(renewed)
                self._done += 1

            send_renew(store, conversation_id, run, attempt, take)

        monkeypatch.setattr(RunStore, "send_renew", counted)

    async def more(self, number: int) -> None:
        """Wait for so many more."""
        wanted = self._done + number

        async def is_enough() -> bool:
            return self._done >= wanted

        await until(is_enough)


async def test_an_answer_is_kept_though_its_end_was_noticed_first(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose terminal is seen by the keeper of its lease before its reply arrives keeps its answer."""
    monkeypatch.setattr("streaming.writing.leases.RENEW_INTERVAL", timedelta(milliseconds=20))
    append, leases = handler.runs.append, LeaseKeeper(new_client, TTL)

    async def slow_to_reply(*arguments: Any) -> Any:
        appended = await append(*arguments)

        async def was_let_go() -> bool:
            return not leases.running()

        if arguments[2][-1].status is not None:
            await until(was_let_go)
        return appended

    monkeypatch.setattr(handler.runs, "send_append", sending_by(slow_to_reply))
    conversation = DurableConversation(handler, ScriptedAgent(*said("answer")), leases=leases)
    assert (await conversation.run("r")).text == "answer"
    assert conversation.saved
    await asyncio.to_thread(leases.close)


async def test_an_execution_that_writes_again_does_not_supersede_itself(
    handler: RedisStreamResponseHandler,
    redis: Redis,
    new_client: Callable[[], Redis],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The keeper of its lease may see its new attempt before it hears of it, and lets it go on."""
    monkeypatch.setattr("streaming.writing.leases.RENEW_INTERVAL", timedelta(milliseconds=20))
    begin_run, pause, leases = handler.runs.begin, asyncio.Event(), LeaseKeeper(new_client, TTL)
    renewals = CountedRenewals(monkeypatch)

    async def slow_to_reply(*arguments: Any, **options: Any) -> Any:
        begun = await begin_run(*arguments, **options)
        if options.get("forgotten") is not None:
            await renewals.more(2)
        return begun

    monkeypatch.setattr(handler.runs, "begin", slow_to_reply)
    agent = ScriptedAgent(*said("one "), pause, *said("two"))
    conversation = DurableConversation(handler, agent, leases=leases)
    running = conversation.start("r")

    async def is_streamed() -> bool:
        return bool(await redis.xlen(keys_of("c").stream))

    await until(is_streamed)
    await redis.flushall()
    pause.set()
    assert (await running).text == "one two"
    chunks = await read_all(handler, "c")
    assert (text_of(chunks), chunks[-1].status) == ("one two", RunStatus.COMPLETED)
    await asyncio.to_thread(leases.close)


async def test_that_nothing_may_be_kept_counts_more_than_a_cancel() -> None:
    """An execution that was cancelled and then superseded is superseded."""
    control = RunControl("c", "r")
    control.stop(StopReason.CANCELLED)
    control.stop(StopReason.SUPERSEDED)
    control.stop(StopReason.CANCELLED)
    assert control.stop_reason is StopReason.SUPERSEDED


@pytest.mark.parametrize(
    "reasons",
    [(StopReason.SUPERSEDED, StopReason.CANCELLED), (StopReason.CANCELLED, StopReason.SUPERSEDED)],
)
async def test_two_reasons_at_once_stop_a_recording_as_one(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis], reasons: tuple[StopReason, ...]
) -> None:
    """A recording that is cancelled and superseded in one turn is refused, and no cancel is left of it."""
    leases, waits = LeaseKeeper(new_client, TTL), asyncio.Event()
    recording = RunRecording(handler, "c", leases=leases, agent="A", run="r")
    await recording.begin()
    control = recording._control
    assert control is not None

    async def step() -> None:
        waits.set()
        await asyncio.Event().wait()

    async def record() -> int:
        with pytest.raises(WriterRefused):
            await recording.interruptible(step())
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    recorded = asyncio.create_task(record())
    await waits.wait()
    for reason in reasons:
        control.stop(reason)
    assert await recorded == 0
    await asyncio.to_thread(leases.close)


async def test_a_terminal_that_somebody_else_wrote_is_not_taken_for_ones_own(
    handler: RedisStreamResponseHandler,
) -> None:
    """A writer whose run was ended as interrupted is refused, though its next sequence is stored."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("a")])
    state = await handler.runs.state("c", "r")
    assert state is not None
    await handler.runs.settle(state, interrupted(), patience=None)
    for entry in (text("b"), COMPLETED):
        with pytest.raises(RunEnded):
            await handler.runs.append(attempt, 1, [entry])
    assert [chunk.status for chunk in await read_all(handler, "c")] == [None, RunStatus.INTERRUPTED]


async def test_a_deleted_stream_is_noticed(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """An append to a stream that was deleted in mid-run is refused as lost: it would begin with a hole."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("a")])
    await redis.delete(keys_of("c").stream)
    for _ in range(2):
        with pytest.raises(RunLost):
            await handler.runs.append(attempt, 1, [text("b")])
    assert not await redis.exists(keys_of("c").stream)


async def test_a_stream_deleted_in_mid_run_is_written_again(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """Whoever deletes the stream of a run in progress costs its readers nothing in the end."""
    pause = asyncio.Event()
    conversation = DurableConversation(handler, ScriptedAgent(*said("one "), pause, *said("two ", "three")))
    running = conversation.start("r")

    async def is_streamed() -> bool:
        return bool(await redis.xlen(keys_of("c").stream))

    await until(is_streamed)
    await redis.delete(keys_of("c").stream)
    pause.set()
    assert (await running).text == "one two three"
    chunks = await read_all(handler, "c")
    assert [chunk.type for chunk in chunks] == ["reset", None, None, None, None]
    assert text_of(chunks) == "one two three"


@pytest.mark.parametrize("again", [1, 4])
async def test_a_stream_that_is_lost_while_it_is_written_again(
    handler: RedisStreamResponseHandler, redis: Redis, monkeypatch: pytest.MonkeyPatch, again: int
) -> None:
    """A second flush, in the middle of the repair after the first, is repaired like the first."""
    monkeypatch.setattr("streaming.writing.writer.BATCH_ENTRIES", 1)
    append, appends = handler.runs.append, 0

    async def flushed_first(*arguments: Any) -> Any:
        nonlocal appends
        appends += 1
        if 3 <= appends < 3 + 2 * again and appends % 2:
            await redis.flushall()
        return await append(*arguments)

    monkeypatch.setattr(handler.runs, "send_append", sending_by(flushed_first))
    texts = [f"{number} " for number in range(20)]
    await DurableConversation(handler, ScriptedAgent(*said(*texts))).run("r")
    assert text_of(await read_all(handler, "c")) == "".join(texts)
    assert appends > 3 + 2 * again


async def test_after_a_flush_a_zombie_of_the_same_number_is_fenced(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """Attempts are counted anew after a flush, yet the earlier execution can't write into the later's."""
    zombie = await begin(handler, "c", "r", owner="first")
    await handler.runs.append(zombie, 0, [text("zombie ")])
    await redis.flushall()
    attempt = await begin(handler, "c", "r", owner="second")
    assert attempt.number == zombie.number
    await handler.runs.append(attempt, 0, [text("answer ")])
    with pytest.raises(AttemptFenced):
        await handler.runs.append(zombie, 1, [text("zombie")])
    with pytest.raises(AttemptFenced):
        await handler.runs.begin("c", "r", owner="third", reason="x", forgotten=Forgotten(zombie, 0))
    await handler.runs.append(attempt, 1, [COMPLETED])
    assert text_of(await read_all(handler, "c")) == "answer "


async def test_a_state_from_before_the_attempt_is_noticed(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A failover that lost the beginning of an attempt makes it write again, not stop."""
    first = await begin(handler, "c", "r", owner="first")
    await handler.runs.append(first, 0, [text("half")])
    key = keys_of("c").run("r")
    before: Any = await redis.hgetall(key)
    second = await begin(handler, "c", "r", owner="second")
    await redis.hset(key, mapping=before)
    with pytest.raises(RunLost):
        await handler.runs.append(second, second.next_sequence, [text("whole")])
    third = await handler.begin_run("c", "r", agent="Agent", owner="third", forgotten=Forgotten(second, 0))
    assert (third.number, third.next_sequence) == (3, 1)
    await handler.runs.append(third, 1, [text("whole"), COMPLETED])
    assert text_of(await read_all(handler, "c")) == "whole"


async def test_ids_grow_though_the_clock_of_redis_went_back(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """What is written again has ids above those that readers have, on a server whose clock is behind."""
    attempt = await begin(handler, "c", "r")
    # An hour ahead of the clock that the next server has.
    ahead = attempt.began + 3_600_000
    await redis.flushall()
    for owner, first_of_millisecond in (("a", 0), ("b", 1)):
        attempt = await handler.begin_run(
            "c", "r", agent="Agent", owner=owner, forgotten=Forgotten(attempt, ahead)
        )
        await handler.runs.append(attempt, 1, [text(owner)])
        newest: Any = await redis.xrevrange(keys_of("c").stream, count=2)
        ids = [tuple(map(int, entry_id.decode().split("-"))) for entry_id, _ in newest]
        assert ids == [(ahead + 1, 2 * first_of_millisecond + 1), (ahead + 1, 2 * first_of_millisecond)]


async def test_beginning_to_write_again_twice_is_beginning_once(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A repair whose beginning got no reply begins again and adds no second reset."""
    lost = Forgotten(await begin(handler, "c", "r"), 0)
    first, second = [
        await handler.begin_run("c", "r", agent="Agent", owner="again", forgotten=lost) for _ in range(2)
    ]
    assert (first.number, first.next_sequence) == (second.number, second.next_sequence) == (2, 1)
    assert await redis.xlen(keys_of("c").stream) == 1


async def test_the_same_request_delivered_twice_at_once(handler: RedisStreamResponseHandler) -> None:
    """Of two executions of a run at once one is stopped and kept nowhere; the other's is the stream."""
    executions = {}
    for name in ("first", "second"):
        texts = [f"{name}:{number} " for number in range(300)]
        conversation = DurableConversation(handler, ScriptedAgent(*said(*texts)))
        executions[conversation.start("r")] = (conversation, "".join(texts))
    results = await asyncio.gather(*executions, return_exceptions=True)
    (winner,) = [task for task, result in zip(executions, results, strict=True) if not _is_stopped(result)]
    (loser,) = [task for task in executions if task is not winner]
    assert winner.result().text == executions[winner][1]
    assert executions[winner][0].saved
    assert not executions[loser][0].saved
    assert text_of(await read_all(handler, "c")) == executions[winner][1]


def _is_stopped(result: object) -> bool:
    return isinstance(result, asyncio.CancelledError)


async def test_a_writer_that_breaks_lets_its_run_go(
    handler: RedisStreamResponseHandler,
    new_client: Callable[[], Redis],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever unforeseen a stream breaks with, the answer is kept and nobody waits for the run for ever."""

    async def broken(*_arguments: Any) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(handler.runs, "send_append", sending_by(broken))
    leases = LeaseKeeper(new_client, TTL)
    conversation = DurableConversation(handler, ScriptedAgent(*said("one ", "two")), leases=leases)
    assert (await conversation.run("r")).text == "one two"
    assert leases.running() == []
    assert "run goes on without its stream: conversation=c run=r" in caplog.text
    assert "secret" not in caplog.text
    await asyncio.to_thread(leases.close)


async def test_what_is_forgotten_is_dated_by_the_clock_of_redis(handler: RedisStreamResponseHandler) -> None:
    """A writer knows a time that no id of its entries is beyond, also of one whose reply was lost."""
    attempt = await begin(handler, "c", "r")
    writer = RunWriter(handler.runs, attempt, RunControl("c", "r"))
    await writer.put(text("a"))
    await writer.flush()
    unacknowledged = await handler.runs.append(attempt, 1, [text("b")])
    newest = int(unacknowledged.entry_ids[0].partition("-")[0])
    forgotten = writer.forgotten
    assert forgotten.attempt == attempt
    assert newest < forgotten.newest < newest + 10_000
