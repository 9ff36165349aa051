"""How long what is written lives: docs/protocol.md, 2.1 and 3.7."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.identifiers import keys_of
from streaming.store.run_states import Attempt
from tests.contract.conftest import TTL
from tests.contract.reading import begin, text

TTL_MS = int(TTL.total_seconds() * 1000)
Write = Callable[[RedisStreamResponseHandler, Attempt], Awaitable[object]]


async def _append(handler: RedisStreamResponseHandler, attempt: Attempt) -> object:
    return await handler.runs.append(attempt, 1, [text("1")])


async def _renew(handler: RedisStreamResponseHandler, attempt: Attempt) -> object:
    return await handler.runs.renew("c", attempt.run, attempt.number)


async def _write_chunk(handler: RedisStreamResponseHandler, _attempt: Attempt) -> object:
    return await handler.write_chunk("c", "1", 1)


async def _begun(handler: RedisStreamResponseHandler, redis: Redis) -> Attempt:
    """A run whose lease is due."""
    attempt = await begin(handler, "c", "r")
    await handler.runs.append(attempt, 0, [text("0")])
    key = keys_of("c").run("r")
    lease = int(await redis.hget(key, "lease") or 0)
    await redis.hset(key, "lease", str(lease - 6_000))
    return attempt


@pytest.mark.parametrize("write", [_append, _renew, _write_chunk])
@pytest.mark.parametrize(("left", "renewed"), [(0.95, False), (0.85, True), (1.5, True)])
async def test_a_ttl_is_renewed_once_a_tenth_has_passed(
    handler: RedisStreamResponseHandler, redis: Redis, write: Write, left: float, *, renewed: bool
) -> None:
    """Who writes gives a stream its TTL again, and not with each chunk; a longer one becomes this one too."""
    attempt = await _begun(handler, redis)
    given = int(TTL_MS * left)
    all_keys = [keys_of("c").stream]
    if write is not _write_chunk:
        all_keys += [keys_of("c").run("r"), keys_of("c").runs]
    for key in all_keys:
        await redis.pexpire(key, given)
    await write(handler, attempt)
    for key in all_keys:
        now = await redis.pttl(key)
        assert (TTL_MS * 0.98 < now <= TTL_MS) if renewed else (given * 0.98 < now <= given)


@pytest.mark.parametrize("write", [_append, _renew])
@pytest.mark.parametrize("short", ["stream", "state", "runs"])
async def test_each_key_counts(
    handler: RedisStreamResponseHandler, redis: Redis, write: Write, short: str
) -> None:
    """A run's keys are kept although another run of the conversation has just renewed what they share."""
    attempt = await _begun(handler, redis)
    keys = keys_of("c")
    key = {"stream": keys.stream, "state": keys.run("r"), "runs": keys.runs}[short]
    await redis.pexpire(key, 1_000)
    await write(handler, attempt)
    assert await redis.pttl(key) > TTL_MS * 0.98


async def test_a_silent_run_keeps_its_state_before_its_first_chunk(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A run that has said nothing has no stream yet, and its state lives on."""
    attempt = await begin(handler, "c", "r")
    state = keys_of("c").run("r")
    await redis.pexpire(state, 1_000)
    await _renew(handler, attempt)
    assert await redis.pttl(state) > TTL_MS * 0.98


async def test_the_end_of_an_unregistered_run_renews(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A stream is kept for its TTL after its end, whoever wrote it."""
    key = keys_of("c").stream
    await handler.write_chunk("c", "0", 0)
    await redis.pexpire(key, int(TTL_MS * 0.95))
    await handler.write_completion("c", 1)
    assert await redis.pttl(key) > TTL_MS * 0.98
