"""Streams that Redis has lost are rebuilt from the durable answer: docs/protocol.md, section 4.12."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.durable_answer import DurableAnswer
from streaming.entries import RESET, NewEntry, RunStatus, StreamChunk
from streaming.errors import ConversationNotFound, RunNotFound, TaskHubUnavailable
from streaming.identifiers import keys_of
from streaming.store.run_states import Renewal
from streaming.text_blocks import chunks_of
from streaming.writing.leases import LeaseKeeper
from streaming.writing.restorer import OWNER, PIECE, StreamRestorer
from tests.contract.conftest import TTL
from tests.contract.reading import BOUND, begin, complete_run, read_all, subscribers, text, text_of, until
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said

SOON = timedelta(milliseconds=20)


class DurableState:
    """What a task hub remembers of conversation ``c``."""

    def __init__(self, handler: RedisStreamResponseHandler) -> None:
        self._restorer = StreamRestorer(handler.runs, self.find)
        self._handler = handler
        self.answers: dict[str, DurableAnswer] = {}
        self.is_away = False
        self.asked = 0

    def remember(self, run: str, answer: str, error: str | None = None, code: str | None = None) -> None:
        """Keep the answer of a run; the last one kept is the latest."""
        self.answers[run] = DurableAnswer(agent="Agent", run=run, text=answer, error=error, code=code)

    async def find(self, conversation_id: str, run: str | None) -> DurableAnswer | None:
        """The answer to a run, as a task hub finds it."""
        self.asked += 1
        if self.is_away:
            raise TaskHubUnavailable
        if conversation_id != "c":
            return None
        return self.answers.get(run) if run else next(reversed(self.answers.values()), None)

    async def restore(self, conversation_id: str, run: str | None) -> bool:
        """What readers are given."""
        return await self._restorer.restore(conversation_id, run)

    async def read(self, cursor: str | None = None, run: str | None = None) -> list[StreamChunk]:
        """Everything that a read with this durable state behind it gives."""
        opened = await self._handler.reader.open("c", cursor, run=run, restore=self.restore)
        async with asyncio.timeout(BOUND):
            return [chunk async for batch in opened for chunk in chunks_of(batch)]


@pytest.fixture
def durable(handler: RedisStreamResponseHandler) -> DurableState:
    """The durable state behind the handler's streams."""
    return DurableState(handler)


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers look after their producer all the time."""
    monkeypatch.setattr("streaming.reading.liveness.LIVENESS_INTERVAL", SOON)
    monkeypatch.setattr("streaming.reading.patrol.LIVENESS_INTERVAL", SOON)


async def test_an_answer_outlives_its_stream(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis
) -> None:
    """After a flush a read gives a reset, the whole answer and its end; the next read gives the same."""
    await complete_run(handler, "c", "r", "some ", "text")
    durable.remember("r", "some text")
    await redis.flushall()
    first = await durable.read()
    assert first[0].type == RESET
    assert (text_of(first), first[-1].status) == ("some text", RunStatus.COMPLETED)
    assert await durable.read() == first
    assert [chunk.sequence for chunk in first] == list(range(len(first)))


async def test_a_reader_that_had_a_part_is_told_to_discard_it(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis
) -> None:
    """A cursor from before the flush is told to discard what it had before it gets the answer."""
    await complete_run(handler, "c", "r", "some ", "text")
    cursor = (await read_all(handler, "c"))[0].entry_id
    durable.remember("r", "some text")
    await redis.flushall()
    chunks = await durable.read(cursor)
    assert [chunk.type for chunk in chunks[:2]] == [RESET, RESET]
    assert text_of(chunks) == "some text"


async def test_a_long_answer_is_rebuilt_in_pieces(durable: DurableState) -> None:
    """An answer of many pieces, emoji at their borders, comes back exactly."""
    answer = "🙂" * (PIECE * 3) + "end\r\n"
    durable.remember("r", answer)
    assert text_of(await durable.read(run="r")) == answer


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        ("The agent failed.", "agent_failed", RunStatus.FAILED),
        ("The run was cancelled.", "cancelled", RunStatus.CANCELLED),
    ],
)
async def test_a_run_that_did_not_complete_is_rebuilt_as_it_ended(
    durable: DurableState, error: str, code: str, status: RunStatus
) -> None:
    """A failed or cancelled run comes back with its part of an answer and its own terminal."""
    durable.remember("r", "half", error, code)
    chunks = await durable.read()
    assert (text_of(chunks), chunks[-1].status) == ("half", status)


async def test_the_latest_run_stays_the_latest(durable: DurableState) -> None:
    """When an older run is asked for first, a read that names none still gives the latest."""
    durable.remember("r1", "one")
    durable.remember("r2", "two")
    assert text_of(await durable.read(run="r1")) == "one"
    assert text_of(await durable.read()) == "two"
    assert text_of(await durable.read(run="r2")) == "two"


async def test_many_restore_at_once_and_one_stream_comes(durable: DurableState, redis: Redis) -> None:
    """Twenty readers that find the stream gone get one and the same, written once."""
    durable.remember("r", "x" * 5 * PIECE)
    first, *others = await asyncio.gather(*(durable.read() for _ in range(20)))
    assert all(chunks == first for chunks in others)
    assert await redis.xlen(keys_of("c").stream) == len(first) == 7


async def test_a_broken_off_restoration_is_finished(
    handler: RedisStreamResponseHandler, durable: DurableState
) -> None:
    """What another process began to rebuild, and never finished, is finished without doubling anything."""
    durable.remember("r", "x" * 3 * PIECE)
    await handler.runs.register("c", "r", "Agent")
    attempt = await handler.runs.begin("c", "r", owner=OWNER, reason="")
    await handler.runs.append(attempt, 0, [NewEntry(1, type=RESET), text("x" * PIECE)])
    assert await durable.restore("c", "r")
    chunks = await durable.read()
    assert (text_of(chunks), chunks[-1].status) == ("x" * 3 * PIECE, RunStatus.COMPLETED)
    assert [chunk.sequence for chunk in chunks] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("looks_often")
async def test_a_deleted_stream_is_written_again(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis, times: int
) -> None:
    """When somebody deletes an ended run's stream, but not what is known of the run, a read rebuilds it."""
    await complete_run(handler, "c", "r", "some ", "text")
    durable.remember("r", "some text")
    chunks: list[StreamChunk] = []
    for _ in range(times):
        await redis.delete(keys_of("c").stream)
        chunks = await durable.read()
    assert (text_of(chunks), chunks[-1].status) == ("some text", RunStatus.COMPLETED)


@pytest.mark.usefixtures("looks_often")
async def test_a_deleted_end_is_written_again(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis
) -> None:
    """When a run's terminal alone was deleted, its reader gets the answer again, and its end."""
    await complete_run(handler, "c", "r", "some ", "text")
    durable.remember("r", "some text")
    state = await handler.runs.state("c", "r")
    assert state is not None
    assert state.terminal is not None
    await redis.xdel(keys_of("c").stream, state.terminal)
    chunks = await durable.read()
    assert [chunk.type for chunk in chunks] == [None, None, RESET, None, None]
    assert (text_of(chunks), chunks[-1].status) == ("some text", RunStatus.COMPLETED)


async def test_what_nobody_remembers_is_not_found(durable: DurableState) -> None:
    """Without a durable answer an unknown conversation or run is as unknown as ever."""
    with pytest.raises(ConversationNotFound):
        await durable.read()
    durable.remember("r", "text")
    await durable.read()
    with pytest.raises(RunNotFound):
        await durable.read(run="other")


async def test_a_retained_run_is_read_and_not_rebuilt(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis
) -> None:
    """A run whose state has expired, but whose entries a later run kept alive, is read as it is."""
    await complete_run(handler, "c", "r1", "one")
    await complete_run(handler, "c", "r2", "two")
    durable.remember("r1", "one")
    await redis.delete(keys_of("c").run("r1"))
    chunks = await durable.read(run="r1")
    assert [chunk.text for chunk in chunks] == ["one", None]
    terminal = chunks[-1].entry_id
    assert (await handler.reader.open("c", terminal, run="r1")).has_nothing_more
    assert durable.asked == 0


@pytest.mark.usefixtures("looks_often")
async def test_an_end_that_never_reached_the_stream_is_repaired(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis
) -> None:
    """A run that went on without its stream ends for its readers with the durable answer, not as lost."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("so ")])
    readers = [asyncio.create_task(durable.read()) for _ in range(3)]
    await until(lambda: subscribers(redis, 1))
    durable.remember("r", "so far so good")
    await redis.hset(keys_of("c").run("r"), "lease", "1")
    for chunks in await asyncio.gather(*readers):
        assert (text_of(chunks), chunks[-1].status) == ("so far so good", RunStatus.COMPLETED)
    state = await handler.runs.state("c", "r")
    assert state is not None
    assert (state.status, state.attempt) == (RunStatus.COMPLETED, 2)


@pytest.mark.usefixtures("looks_often")
async def test_a_run_is_not_given_up_while_the_task_hub_is_away(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a silent run has an answer is asked until the hub says so, within a bound."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("half")])
    await redis.hset(keys_of("c").run("r"), "lease", "1")
    durable.is_away = True
    reading = asyncio.create_task(durable.read())

    async def asked_often() -> bool:
        return durable.asked >= 5

    await until(asked_often)
    assert not reading.done()
    monkeypatch.setattr("streaming.reading.liveness.HUB_PATIENCE", SOON)
    assert (await reading)[-1].status is RunStatus.INTERRUPTED


@pytest.mark.usefixtures("looks_often")
async def test_a_waiting_reader_gets_the_answer_of_a_run_that_was_flushed(
    handler: RedisStreamResponseHandler, durable: DurableState, redis: Redis
) -> None:
    """A reader whose stream vanishes while it waits gets the durable answer after a reset."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("one ")])
    reading = asyncio.create_task(durable.read())
    await until(lambda: subscribers(redis, 1))
    durable.remember("r", "one two")
    await redis.flushall()
    chunks = await reading
    assert [chunk.type for chunk in chunks] == [None, RESET, None, None]
    assert text_of(chunks) == "one two"


async def test_a_silent_run_is_made_known_again(
    handler: RedisStreamResponseHandler,
    redis: Redis,
    new_client: Callable[[], Redis],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that was flushed while its agent is silent is registered again at once and written later."""
    monkeypatch.setattr("streaming.writing.leases.RENEW_INTERVAL", SOON)
    leases = LeaseKeeper(new_client, TTL)
    leases.keep("c", "waiting", agent="Agent")
    pause = asyncio.Event()
    conversation = DurableConversation(
        handler, ScriptedAgent(*said("one "), pause, *said("two")), leases=leases
    )
    running = conversation.start("r")

    async def is_known(run: str, status: RunStatus) -> bool:
        state = await handler.runs.state("c", run)
        return state is not None and state.status is status

    async def is_streamed() -> bool:
        return await redis.xlen(keys_of("c").stream) == 1

    await until(is_streamed)
    await redis.flushall()
    await until(lambda: is_known("r", RunStatus.RUNNING))
    await until(lambda: is_known("waiting", RunStatus.PENDING))
    reading = asyncio.create_task(read_all(handler, "c", run="r"))
    pause.set()
    await running
    assert text_of(await reading) == "one two"
    leases.release("c", "waiting")
    await asyncio.to_thread(leases.close)


async def test_a_run_that_is_never_begun_is_let_go(
    handler: RedisStreamResponseHandler,
    new_client: Callable[[], Redis],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that its task hub never begins loses its lease in the end, so its readers get a reason."""
    monkeypatch.setattr("streaming.writing.leases.RENEW_INTERVAL", SOON)
    monkeypatch.setattr("streaming.writing.leases.PENDING_LIMIT", SOON)
    await handler.runs.register("c", "r", "Agent")
    leases = LeaseKeeper(new_client, TTL)
    leases.keep("c", "r", agent="Agent")
    async with asyncio.timeout(BOUND):
        await leases.wait_until_idle()
    await asyncio.to_thread(leases.close)


async def test_a_silent_run_whose_attempt_was_rolled_back_keeps_its_lease(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A failover that lost an attempt's beginning does not make its producer, which is alive, seem dead."""
    await begin(handler, "c", "r")
    state = keys_of("c").run("r")
    await redis.hset(state, mapping={"attempt": "0", "status": "pending", "lease": "1"})
    renewed = await handler.runs.renew("c", "r", 1)
    assert renewed == Renewal(RunStatus.PENDING, 0, cancel_requested=False, owner="worker")
    assert int((await redis.hget(state, "lease")) or 0) > 1
    # The accepting service no longer keeps a run that has begun.
    await redis.hset(state, mapping={"attempt": "2", "lease": "1"})
    await handler.runs.renew("c", "r", 1)
    assert await redis.hget(state, "lease") == b"1"
