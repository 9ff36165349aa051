"""Writing: rules of docs/protocol.md, section 3."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry, RunStatus
from streaming.errors import AttemptFenced, RunEnded, RunLost, SequenceGap
from streaming.identifiers import keys_of
from streaming.reading.liveness import interrupted
from streaming.store.run_states import Settlement
from tests.contract.conftest import TTL
from tests.contract.reading import COMPLETED, begin, complete_run, read_all, text, text_of


async def stored(redis: Redis, conversation: str) -> list[dict[str, str]]:
    entries: Any = await redis.xrange(keys_of(conversation).stream)
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]


async def test_entries_have_the_documented_fields(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Entries have text, sequence, timestamp, run; typed ones type and data; the terminal a status."""
    attempt = await begin(handler, "c", "r")
    call = NewEntry(timestamp=7, type="tool_call", data={"name": "get", "arguments": "é"})
    await handler.runs.append(attempt, 0, [text("hello"), call, COMPLETED])
    assert await stored(redis, "c") == [
        {"text": "hello", "sequence": "0", "timestamp": "1", "run": "r"},
        {
            "text": "",
            "sequence": "1",
            "timestamp": "7",
            "type": "tool_call",
            "data": '{"name":"get","arguments":"é"}',
            "run": "r",
        },
        {"text": "", "sequence": "2", "timestamp": "1", "status": "completed", "done": "true", "run": "r"},
    ]


async def test_a_repeated_batch_is_stored_once(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """A batch whose reply was lost is repeated, and answered with the ids it has already."""
    attempt = await begin(handler, "c", "r")
    batch = [text("a"), text("b")]
    first = await handler.runs.append(attempt, 0, batch)
    await complete_run(handler, "c", "another", "between")
    assert await handler.runs.append(attempt, 0, batch) == first
    assert [entry["text"] for entry in await stored(redis, "c") if entry["run"] == "r"] == ["a", "b"]


async def test_a_partly_stored_batch_is_completed(handler: RedisStreamResponseHandler) -> None:
    """Of a batch that overlaps what is stored only the rest is appended."""
    attempt = await begin(handler, "c", "r")
    first = await handler.runs.append(attempt, 0, [text("a"), text("b")])
    second = await handler.runs.append(attempt, 1, [text("b"), text("c"), COMPLETED])
    assert second.entry_ids[0] == first.entry_ids[1]
    assert text_of(await read_all(handler, "c")) == "abc"


async def test_a_repeated_terminal_is_stored_once(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Repeating the last batch after the run has ended changes nothing."""
    attempt = await begin(handler, "c", "r")
    first = await handler.runs.append(attempt, 0, [text("a"), COMPLETED])
    assert await handler.runs.append(attempt, 0, [text("a"), COMPLETED]) == first
    assert len(await stored(redis, "c")) == 2


async def test_a_hole_is_refused(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """A batch that would leave a hole in the sequence is an error, and nothing of it is stored."""
    attempt = await begin(handler, "c", "r")
    with pytest.raises(SequenceGap, match="next sequence is 0"):
        await handler.runs.append(attempt, 1, [text("b")])
    assert await stored(redis, "c") == []


async def test_nothing_after_the_terminal(handler: RedisStreamResponseHandler) -> None:
    """A run that has its terminal takes no more entries, and no second terminal."""
    attempt = await complete_run(handler, "c", "r", "a")
    for late in (text("late"), COMPLETED):
        with pytest.raises(RunEnded):
            await handler.runs.append(attempt, 2, [late])


async def test_a_later_attempt_fences_off_the_earlier(handler: RedisStreamResponseHandler) -> None:
    """A second attempt resets what the first left, and the first can't write any more."""
    zombie = await begin(handler, "c", "r", owner="first")
    await handler.runs.append(zombie, 0, [text("half an ans")])
    attempt = await begin(handler, "c", "r", owner="second")
    assert (attempt.number, attempt.next_sequence) == (2, 1)
    with pytest.raises(AttemptFenced):
        await handler.runs.append(zombie, 1, [text("wer")])
    await handler.runs.append(attempt, 1, [text("the answer"), COMPLETED])
    chunks = await read_all(handler, "c")
    assert [(chunk.type, chunk.attempt, chunk.sequence) for chunk in chunks] == [
        (None, 1, 0),
        ("reset", 2, 0),
        (None, 2, 1),
        (None, 2, 2),
    ]
    assert text_of(chunks) == "the answer"


async def test_an_attempt_that_left_nothing_needs_no_reset(handler: RedisStreamResponseHandler) -> None:
    """A second attempt after a silent first one shows readers nothing of it."""
    await begin(handler, "c", "r", owner="first")
    attempt = await begin(handler, "c", "r", owner="second")
    await handler.runs.append(attempt, 0, [text("answer"), COMPLETED])
    assert [chunk.type for chunk in await read_all(handler, "c")] == [None, None]


async def test_beginning_twice_is_beginning_once(handler: RedisStreamResponseHandler) -> None:
    """The same execution that begins again (its reply was lost) keeps its attempt."""
    assert await begin(handler, "c", "r") == await begin(handler, "c", "r")


async def test_an_ended_run_is_not_begun_again(handler: RedisStreamResponseHandler) -> None:
    """A request that is delivered again after its run has ended is refused."""
    await complete_run(handler, "c", "r", "a")
    with pytest.raises(RunEnded):
        await begin(handler, "c", "r", owner="again")


async def test_a_lost_run_is_told(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """When the store has forgotten the run, the writer hears so instead of writing into nothing."""
    attempt = await begin(handler, "c", "r")
    await redis.flushall()
    with pytest.raises(RunLost):
        await handler.runs.append(attempt, 0, [text("a")])


async def test_registering_twice_changes_nothing(handler: RedisStreamResponseHandler) -> None:
    """A run that is registered again keeps its place and its state."""
    first = await handler.runs.register("c", "r", "Agent")
    await complete_run(handler, "c", "other", "a")
    assert await handler.runs.register("c", "r", "Agent") == first
    latest = await handler.runs.latest_run("c")
    assert latest is not None
    assert latest.run == "other"


async def test_settling_is_fenced_and_done_once(handler: RedisStreamResponseHandler) -> None:
    """Only the attempt that was seen dead is ended, once, with the next sequence."""
    attempt = await begin(handler, "c", "r", owner="first")
    await handler.runs.append(attempt, 0, [text("a")])
    seen = await handler.runs.state("c", "r")
    assert seen is not None
    assert await handler.runs.settle(seen, interrupted(), patience=TTL) is Settlement.ALIVE
    assert await handler.runs.settle(seen, interrupted(), patience=None, confirm=False) is Settlement.LAPSED
    await begin(handler, "c", "r", owner="second")
    assert await handler.runs.settle(seen, interrupted(), patience=None) is Settlement.CHANGED
    seen = await handler.runs.state("c", "r")
    assert seen is not None
    outcomes = await asyncio.gather(
        *(handler.runs.settle(seen, interrupted(), patience=None) for _ in range(5))
    )
    assert sorted(outcomes) == [Settlement.ENDED] * 4 + [Settlement.SETTLED]
    last = (await read_all(handler, "c"))[-1]
    assert (last.status, last.code, last.attempt, last.sequence) == (
        RunStatus.INTERRUPTED,
        "interrupted",
        2,
        1,
    )


async def test_cancelling_before_the_start_ends_the_run(handler: RedisStreamResponseHandler) -> None:
    """A run that no attempt has begun ends as cancelled at once, and is never begun."""
    state = await handler.runs.register("c", "r", "Agent")
    assert await handler.runs.cancel_unstarted(state)
    with pytest.raises(RunEnded):
        await begin(handler, "c", "r")
    (only,) = await read_all(handler, "c")
    assert only.is_done
    assert only.status is RunStatus.CANCELLED


async def test_a_cancel_reaches_the_writer(handler: RedisStreamResponseHandler) -> None:
    """Who appends after a cancel was asked for hears of it in the reply."""
    attempt = await begin(handler, "c", "r")
    assert not (await handler.runs.append(attempt, 0, [text("a")])).cancel_requested
    assert await handler.runs.request_cancel("c", "r") is RunStatus.RUNNING
    assert (await handler.runs.append(attempt, 1, [text("b")])).cancel_requested


@pytest.mark.parametrize(
    ("since", "batch", "renews"),
    [
        (0, [text("1")], False),
        (6_000, [text("1")], True),
        # The clock of Redis was put back.
        (-3_600_000, [text("1")], True),
        (0, [COMPLETED], True),
    ],
    ids=["at once", "later", "after a clock put back", "at the end"],
)
async def test_ttls_are_renewed_when_it_is_due(
    handler: RedisStreamResponseHandler, redis: Redis, since: int, batch: list[NewEntry], renews: bool
) -> None:
    """An append renews the TTLs where none did for a while; the end of a run always does."""
    keys = keys_of("c")
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("0")])
    lease = await redis.hget(keys.run("r"), "lease")
    await redis.hset(keys.run("r"), "lease", str(int(lease or 0) - since))
    all_keys = (keys.stream, keys.run("r"), keys.runs)
    for key in all_keys:
        await redis.pexpire(key, 60_000)
    await handler.runs.append(attempt, 1, batch)
    assert [await redis.pttl(key) > 60_000 for key in all_keys] == [renews] * 3


@pytest.mark.parametrize(("since", "renews"), [(0, False), (3_000, True), (-3_600_000, True)])
async def test_an_append_renews_the_lease_when_it_is_due(
    handler: RedisStreamResponseHandler, redis: Redis, since: int, *, renews: bool
) -> None:
    """A run that writes is alive: its appends renew its lease, now and then, and tell so."""
    key = keys_of("c").run("r")
    attempt = await begin(handler, "c", "r")
    assert (await handler.runs.append(attempt, 0, [text("0")])).lease_renewed
    lease = int(await redis.hget(key, "lease") or 0)
    await redis.hset(key, "lease", str(lease - since))
    assert (await handler.runs.append(attempt, 1, [text("1")])).lease_renewed is renews
    left = int(await redis.hget(key, "lease") or 0) - (lease - since)
    assert (left == 0) is not renews


async def test_an_id_ahead_of_the_clock_gives_no_lease_that_lasts(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """Where a foreign program's entry has an id from the future, a producer that dies is still noticed."""
    attempt = await begin(handler, "c", "r")
    await redis.xadd(keys_of("c").stream, {"text": "foreign"}, id="99999999999999-0")
    assert (await handler.runs.append(attempt, 0, [text("0")])).lease_renewed
    lease = int(await redis.hget(keys_of("c").run("r"), "lease") or 0)
    assert 0 < lease - (await redis.time())[0] * 1_000 <= 11_000


@pytest.mark.parametrize("terminal", [COMPLETED, interrupted()])
async def test_a_run_that_has_ended_has_no_lease(
    handler: RedisStreamResponseHandler, redis: Redis, terminal: NewEntry
) -> None:
    """The end takes the lease away, also if it is repeated."""
    attempt = await begin(handler, "c", "r")
    for _ in range(2):
        assert not (await handler.runs.append(attempt, 0, [terminal])).lease_renewed
        assert await redis.hget(keys_of("c").run("r"), "lease") is None


async def test_a_lease_renews_the_ttls(handler: RedisStreamResponseHandler, redis: Redis) -> None:
    """Renewing the lease refreshes the TTL of all of the run's keys, also while nothing is appended."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("a")])
    keys = keys_of("c")
    for key in (keys.stream, keys.runs, keys.run("r")):
        await redis.pexpire(key, 1_000)
    await handler.runs.renew("c", "r", attempt.number)
    assert [await redis.pttl(key) > 1_000 for key in (keys.stream, keys.runs, keys.run("r"))] == [True] * 3


async def test_concurrent_writers_keep_their_runs_apart(handler: RedisStreamResponseHandler) -> None:
    """Runs that write into one conversation at once each keep their own whole sequence."""

    async def write(run: str) -> None:
        attempt = await begin(handler, "c", run)
        for sequence in range(20):
            await handler.runs.append(attempt, sequence, [text(f"{run}{sequence} ")])
        await handler.runs.append(attempt, 20, [COMPLETED])

    await asyncio.gather(*(write(f"run-{number}") for number in range(5)))
    for number in range(5):
        chunks = await read_all(handler, "c", run=f"run-{number}")
        assert [chunk.sequence for chunk in chunks] == list(range(21))
        assert {chunk.run for chunk in chunks} == {f"run-{number}"}
