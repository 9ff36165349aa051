"""From the agent to its trail, in the framework's own entity, beside the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from agent_framework import AgentResponse, Content, Message
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bridges.audit_trail import callback as callbacks
from bridges.audit_trail.callback import ConversationAuditTrail
from bridges.audit_trail.events import TEXT_LIMIT, Thread
from bridges.audit_trail.memory_store import MemoryTrailStore
from bridges.audit_trail.redis_store import RedisTrailStore
from bridges.audit_trail.settings import AuditTrailSettings
from bridges.audit_trail.store import Batch, Selection, TrailStore
from hosting.callbacks import Callbacks
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.writing.leases import LeaseKeeper
from tests.contract.conftest import TTL
from tests.contract.reading import BOUND, read_all, text_of, until
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said

THREAD = Thread("Scripted", "c")
SETTINGS = AuditTrailSettings()


def observed(
    handler: RedisStreamResponseHandler,
    store: TrailStore,
    agent: ScriptedAgent,
    leases: LeaseKeeper | None = None,
) -> DurableConversation:
    """A conversation whose callbacks are the stream and a trail."""
    conversation = DurableConversation(handler, agent, leases=leases)
    trail = ConversationAuditTrail(lambda: store)
    conversation._callback = Callbacks(conversation._callback, trail)  # type: ignore[assignment]
    return conversation


async def trail_of(store: TrailStore) -> list[dict[str, Any]]:
    """The published form of all events."""
    found = await store.read(THREAD, Selection(limit=1_000))
    return [each.published(THREAD) for each in found]


def told(event: dict[str, Any]) -> tuple[str, Any]:
    """An event in short."""
    if event["event_type"] == "stream":
        return event["update_kind"], event.get("usage", event["text"])
    return event["event_type"], event.get("response_text")


@pytest.fixture
def store() -> MemoryTrailStore:
    return MemoryTrailStore(SETTINGS, timedelta(hours=1))


async def test_every_kind_of_update_is_told_truthfully(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """Calls with their joined arguments, results, reasoning, text and usage are what they are; each once."""
    store = RedisTrailStore(redis, SETTINGS, timedelta(hours=1))
    agent = ScriptedAgent(
        [Content.from_function_call(call_id="1", name="look", arguments='{"at":')],
        [Content.from_function_call(call_id="1", name="", arguments=' "Rome"}')],
        [Content.from_usage({"input_token_count": 3, "output_token_count": 1, "total_token_count": 4})],
        [Content.from_function_result(call_id="1", result="sunny")],
        [],
        [Content.from_text_reasoning(text="hm")],
        [Content.from_text("Hello "), Content.from_text("\ud83d")],
        [Content.from_text("\uddfc")],
        [Content.from_usage({"input_token_count": 5, "output_token_count": 2, "total_token_count": 7})],
    )
    await observed(handler, store, agent).run("r", "say hello")
    events = await trail_of(store)
    usage = {
        "type": "usage_details",
        "input_token_count": 8,
        "output_token_count": 3,
        "total_token_count": 11,
    }
    assert [told(event) for event in events] == [
        ("tool_call", 'look({"at": "Rome"})'),
        (
            "usage",
            {
                "type": "usage_details",
                "input_token_count": 3,
                "output_token_count": 1,
                "total_token_count": 4,
            },
        ),
        ("tool_result", "sunny"),
        ("reasoning", "hm"),
        ("text", "Hello "),
        ("text", "🗼"),
        (
            "usage",
            {
                "type": "usage_details",
                "input_token_count": 5,
                "output_token_count": 2,
                "total_token_count": 7,
            },
        ),
        ("final", "Hello 🗼"),
    ]
    assert events[-1]["usage"] == usage
    assert [event["call_id"] for event in events if "call_id" in event] == ["1", "1"]
    for event in events:
        assert (event["agent_name"], event["thread_id"]) == ("Scripted", "c")
        assert (event["correlation_id"], event["request_message"]) == ("r", "say hello")


async def test_texts_are_bounded(handler: RedisStreamResponseHandler, store: MemoryTrailStore) -> None:
    """A huge result is cut, and so is a message; the run's own answer and stream are not."""
    agent = ScriptedAgent(
        [Content.from_function_result(call_id="1", result="x" * 1_000_000)], *said("y" * 10_000)
    )
    await observed(handler, store, agent).run("r", "z" * 5_000)
    result, text, final = await trail_of(store)
    assert result["text"] == "x" * TEXT_LIMIT + "…"
    assert len(text["text"]) == TEXT_LIMIT + 1
    assert len(final["response_text"]) == 10_000
    assert len(final["request_message"]) == 2_049
    assert text_of(await read_all(handler, "c")) == "y" * 10_000


async def test_text_that_is_repeated_as_a_whole_is_told_once(
    handler: RedisStreamResponseHandler, store: MemoryTrailStore
) -> None:
    """A provider's repetition of the whole text makes no event."""
    whole = Content.from_text("Hello you")
    whole.merge_mode = "replace"
    final: AgentResponse[Any] = AgentResponse(messages=[Message(role="assistant", contents=["Hello you"])])
    agent = ScriptedAgent(*said("Hello ", "you"), [whole], final=final)
    await observed(handler, store, agent).run("r")
    assert [told(event) for event in await trail_of(store)] == [
        ("text", "Hello "),
        ("text", "you"),
        ("final", "Hello you"),
    ]


async def test_a_failed_run_ends_with_an_error(
    handler: RedisStreamResponseHandler, store: MemoryTrailStore
) -> None:
    """A failure is told once, by what a user may know, with the part of the answer that there is."""
    agent = ScriptedAgent(*said("half"), ValueError("secret sk-123"))
    await observed(handler, store, agent).run("r")
    events = await trail_of(store)
    assert [told(event) for event in events] == [("text", "half"), ("error", "half")]
    assert events[-1]["code"] == "agent_failed"
    assert events[-1]["error"] == "The agent failed before it finished its answer."
    assert "secret" not in str(events)


async def test_a_cancelled_run_ends_with_an_error(
    handler: RedisStreamResponseHandler, store: MemoryTrailStore, new_client: Callable[[], Redis]
) -> None:
    """A cancel is told too, with what was said before."""
    leases = LeaseKeeper(new_client, TTL)
    agent = ScriptedAgent(*said("partial"), asyncio.Event())
    running = observed(handler, store, agent, leases).start("r")

    async def has_begun() -> bool:
        return len(await trail_of(store)) == 1

    await until(has_begun)
    await handler.runs.request_cancel("c", "r")
    await asyncio.wait_for(running, BOUND)
    await asyncio.to_thread(leases.close)
    end = (await trail_of(store))[-1]
    assert (end["event_type"], end["code"], end["response_text"]) == ("error", "cancelled", "partial")


async def test_a_run_that_is_executed_again_is_told_once_more(
    handler: RedisStreamResponseHandler, store: MemoryTrailStore
) -> None:
    """The trail has what both executions said, and one end; the first adds nothing after it was replaced."""
    pause = asyncio.Event()
    first = observed(handler, store, ScriptedAgent(*said("half "), pause, *said("of the first")))
    zombie = first.start("r")

    async def has_begun() -> bool:
        return len(await trail_of(store)) == 1

    await until(has_begun)
    await observed(handler, store, ScriptedAgent(*said("the answer"))).run("r")
    pause.set()
    with pytest.raises(asyncio.CancelledError):
        await zombie
    assert [told(event) for event in await trail_of(store)] == [
        ("text", "half "),
        ("text", "the answer"),
        ("final", "the answer"),
    ]


async def test_turns_follow_each_other(handler: RedisStreamResponseHandler, store: MemoryTrailStore) -> None:
    """Each run of a conversation has its own events and message."""
    conversation = observed(handler, store, ScriptedAgent(*said("yes")))
    await conversation.run("r1", "one")
    await conversation.run("r2", "two")
    assert [
        (event["correlation_id"], event["request_message"], told(event)) for event in await trail_of(store)
    ] == [
        ("r1", "one", ("text", "yes")),
        ("r1", "one", ("final", "yes")),
        ("r2", "two", ("text", "yes")),
        ("r2", "two", ("final", "yes")),
    ]


class LostStore(MemoryTrailStore):
    """A store that never answers, or always fails."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__(SETTINGS, timedelta(hours=1))
        self._hangs = hangs
        self.calls = 0

    async def append(self, _batch: Batch) -> bool:
        """Fail."""
        self.calls += 1
        if self._hangs:
            await asyncio.Event().wait()
        raise RedisConnectionError("secret")


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_lost_store_harms_no_run(
    handler: RedisStreamResponseHandler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hangs: bool,
) -> None:
    """Where trails can't be kept the run and its stream are whole, and the log says so without details."""
    monkeypatch.setattr(callbacks, "FLUSH_TIMEOUT", timedelta(milliseconds=20))
    store = LostStore(hangs=hangs)
    response = await observed(handler, store, ScriptedAgent(*said(*"abc" * 100))).run("r")
    assert response.text == text_of(await read_all(handler, "c")) == "abc" * 100
    assert "audit trail is late: run=r" in caplog.text
    assert "secret" not in caplog.text
    # One batch on its way, however many chunks there were.
    assert store.calls < 5
    for task in [task for task in asyncio.all_tasks() if task.get_name() == "audit-trail-writer"]:
        task.cancel()
