"""What agents remember with the embedded task hub, over restarts and kills of the service (protocol, 2.1)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from tests.service import (
    SLOW,
    Service,
    connect_http,
    eventually,
    finished_run,
    open_events,
    read_plain,
    running_service,
    start_run,
)

RUN = "/api/agents/TravelPlanner/run"
SIGNALS = (signal.SIGTERM, signal.SIGKILL)
MINUTE_MS = 60_000

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows: processes are not stopped by signals"
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def services() -> Iterator[ExitStack]:
    """Services that a test enters here are gone at its end."""
    with ExitStack() as stack:
        yield stack


def memory_key(conversation: str) -> str:
    """Where Redis keeps what the agent remembers (protocol, 2.1)."""
    return f"{{agent-stream:{conversation}}}:agent:dafx-travelplanner"


async def remembered(redis_url: str, conversation: str, run: str) -> None:
    """Wait until Redis has the run's turn: a moment after its reader has heard of the end."""
    async with Redis.from_url(redis_url) as redis:

        async def has_it() -> bool:
            state = await redis.get(memory_key(conversation))
            return state is not None and run.encode() in state

        await eventually(has_it, "the turn is saved")


async def first_turn(service: Service, message: str = "Plan a 4-day trip to Lisbon") -> tuple[str, str, str]:
    """A finished turn that is saved: the conversation, the run, the answer."""
    async with connect_http(service) as http:
        answer = await finished_run(http, message)
    conversation, run = answer["conversation_id"], answer["correlation_id"]
    await remembered(service.redis_url, conversation, run)
    return conversation, run, answer["response"]


async def answer_to(http: httpx.AsyncClient, message: str, conversation: str) -> str:
    """The answer to one more turn."""
    return str((await finished_run(http, message, conversation_id=conversation))["response"])


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_next_turn_builds_on_the_one_before_a_restart(
    services: ExitStack, data_dir: Path, number: signal.Signals
) -> None:
    """A turn after a stop or a kill of the service knows the turns before it, as without a restart."""
    service = services.enter_context(running_service(data_dir))
    conversation, run, answer = await first_turn(service)
    service.stop(number)
    service = services.enter_context(running_service(data_dir))
    async with connect_http(service) as http:
        report = (await http.get(f"{RUN}/{conversation}", params={"run": run})).json()
        assert (report["status"], report["response"]) == ("Completed", answer)
        cheaper = await answer_to(http, "make it cheaper", conversation)
        assert "Lisbon" in cheaper
        # Without the first turn there is no trip to change.
        assert "Lisbon" not in await answer_to(http, "make it cheaper", "another-conversation")
    service.stop(number)
    async with connect_http(services.enter_context(running_service(data_dir))) as http:
        longer = await answer_to(http, "make it 6 days", conversation)
        assert "Lisbon" in longer
        assert "Day 6" in longer


async def test_durable_answer_outlives_its_stream(services: ExitStack, data_dir: Path) -> None:
    """After a restart the answer can still be had when the stream and its run's state are gone from Redis."""
    service = services.enter_context(running_service(data_dir))
    conversation, run, answer = await first_turn(service)
    service.stop(signal.SIGKILL)
    service = services.enter_context(running_service(data_dir))
    async with Redis.from_url(service.redis_url) as redis:
        keys = await redis.keys(f"*{conversation}*")
        await redis.delete(*(key for key in keys if b"}:agent:" not in key))
    async with connect_http(service) as http:
        report = (await http.get(f"{RUN}/{conversation}", params={"run": run})).json()
        assert (report["status"], report["response"]) == ("Completed", answer)
        assert await read_plain(http, conversation, {"run": run}) == answer


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_cut_off_run_does_not_block_its_conversation(
    services: ExitStack, data_dir: Path, number: signal.Signals
) -> None:
    """A turn in progress at the end is lost as a whole; the next one builds on the finished ones."""
    service = services.enter_context(running_service(data_dir))
    conversation, _, _ = await first_turn(service)
    service.stop()
    slow = services.enter_context(running_service(data_dir, DEMO_MODEL_WORDS_PER_SECOND=SLOW))
    async with connect_http(slow) as http:
        lost = await start_run(http, "Plan a trip to Oslo", conversation_id=conversation)
        queued = await start_run(http, "Plan a trip to Rome", conversation_id=conversation)
        async with open_events(http, conversation, {"run": lost["correlation_id"]}) as stream:
            await stream.up_to("message")
    slow.stop(number)
    async with connect_http(services.enter_context(running_service(data_dir))) as http:
        for run in (lost, queued):
            report = (await http.get(run["links"]["status"])).json()
            assert (report["status"], report["code"]) == ("Failed", "interrupted")
        cheaper = await answer_to(http, "make it cheaper", conversation)
        assert "Lisbon" in cheaper
        assert "Oslo" not in cheaper


async def test_memory_has_a_time_to_live_of_its_own(services: ExitStack, data_dir: Path) -> None:
    """What is remembered stays for CONVERSATION_TTL_MINUTES after the last turn, longer than the stream."""
    settings = {"CONVERSATION_TTL_MINUTES": "60", "REDIS_STREAM_TTL_MINUTES": "5"}
    service = services.enter_context(running_service(data_dir, **settings))
    conversation, _, _ = await first_turn(service)
    key = memory_key(conversation)
    async with Redis.from_url(service.redis_url) as redis, connect_http(service) as http:
        assert 59 * MINUTE_MS < await redis.pttl(key) <= 60 * MINUTE_MS
        assert 0 < await redis.pttl(f"agent-stream:{conversation}") <= 5 * MINUTE_MS
        await redis.pexpire(key, 10 * MINUTE_MS)
        answer = await finished_run(http, "make it cheaper", conversation_id=conversation)
        await remembered(service.redis_url, conversation, answer["correlation_id"])
        assert await redis.pttl(key) > 59 * MINUTE_MS


async def test_flushed_memory_is_written_back(services: ExitStack, data_dir: Path) -> None:
    """What Redis loses while the service still has it in memory is whole again after the next turn."""
    service = services.enter_context(running_service(data_dir))
    conversation, first, _ = await first_turn(service)
    async with Redis.from_url(service.redis_url) as redis, connect_http(service) as http:
        await redis.flushall()
        answer = await finished_run(http, "make it cheaper", conversation_id=conversation)
        assert "Lisbon" in answer["response"]
        await remembered(service.redis_url, conversation, answer["correlation_id"])
        await remembered(service.redis_url, conversation, first)
