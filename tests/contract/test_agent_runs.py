"""From the agent to the stream, in the framework's own entity: docs/protocol.md, section 3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate, Content, Message
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from hosting.durable_state import find_answer
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import NewEntry, RunStatus, StreamChunk
from streaming.store.run_states import Appended, Attempt
from streaming.writing.leases import LeaseKeeper
from tests.appending import sending_by
from tests.contract.conftest import TTL
from tests.contract.reading import BOUND, read_all, subscribers, text_of, until
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said


def shape(chunks: list[StreamChunk]) -> list[Any]:
    return [chunk.text if chunk.type is None else (chunk.type, chunk.data) for chunk in chunks]


async def test_an_answer_is_streamed_and_kept(handler: RedisStreamResponseHandler) -> None:
    """The stream's text, the entity's answer and the durable state are the same."""
    agent = ScriptedAgent(*said("Hello ", "wor", "ld\n"))
    conversation = DurableConversation(handler, agent)
    response = await conversation.run("r")
    chunks = await read_all(handler, "c")
    assert [chunk.text for chunk in chunks] == ["Hello ", "wor", "ld\n", None]
    assert chunks[-1].status is RunStatus.COMPLETED
    assert response.text == "Hello world\n"
    answer = find_answer("Scripted", conversation.saved, "r")
    assert answer is not None
    assert (answer.text, answer.error) == ("Hello world\n", None)


@pytest.mark.parametrize("spoken", [[], ["half an ans"]])
async def test_an_agent_that_fails_ends_its_stream_and_runs_once(
    handler: RedisStreamResponseHandler, spoken: list[str]
) -> None:
    """A failure becomes an error terminal that tells no detail; the model is not called again."""
    agent = ScriptedAgent(*said(*spoken), ValueError("secret sk-123"))
    conversation = DurableConversation(handler, agent)
    await conversation.run("r")
    chunks = await read_all(handler, "c")
    assert [chunk.text for chunk in chunks] == [*spoken, None]
    end = chunks[-1]
    assert (end.status, end.code) == (RunStatus.FAILED, "agent_failed")
    assert "secret" not in str(chunks) + str(conversation.saved)
    assert agent.runs == 1
    answer = find_answer("Scripted", conversation.saved, "r")
    assert answer is not None
    assert (answer.text, answer.code) == ("".join(spoken), "agent_failed")


async def test_a_failure_is_not_told_to_the_model(handler: RedisStreamResponseHandler) -> None:
    """The turn after a failed one works, and the model is shown what was said but not the error."""
    agent = ScriptedAgent(*said("half"), ValueError("no"))
    conversation = DurableConversation(handler, agent)
    await conversation.run("r1", "first")
    agent.steps = tuple(said("fine"))
    await conversation.run("r2", "second")
    assert [message.text for message in agent.messages] == ["first", "half", "second"]
    assert text_of(await read_all(handler, "c")) == "fine"


async def test_the_same_request_twice_runs_the_model_once(handler: RedisStreamResponseHandler) -> None:
    """A request delivered again after its run has ended changes neither the stream nor the state."""
    agent = ScriptedAgent(*said("once"))
    conversation = DurableConversation(handler, agent)
    await conversation.run("r")
    before, saved = await read_all(handler, "c", "0"), conversation.saved
    with pytest.raises(asyncio.CancelledError):
        await conversation.start("r")
    assert agent.runs == 1
    assert await read_all(handler, "c", "0") == before
    assert conversation.saved == saved


async def test_a_run_executed_again_starts_its_answer_again(handler: RedisStreamResponseHandler) -> None:
    """A second attempt resets what the first left, and the first one is stopped when it wakes up."""
    pause = asyncio.Event()
    agent = ScriptedAgent(*said("half "), pause, *said("of the first"))
    zombie = DurableConversation(handler, agent).start("r")
    await until(lambda: _has_entries(handler, 1))
    second = ScriptedAgent(*said("the answer"))
    conversation = DurableConversation(handler, second)
    await conversation.run("r")
    pause.set()
    with pytest.raises(asyncio.CancelledError):
        await zombie
    chunks = await read_all(handler, "c")
    assert text_of(chunks) == "the answer"
    assert [chunk.attempt for chunk in chunks] == [1, 2, 2, 2]


async def _has_entries(handler: RedisStreamResponseHandler, count: int) -> bool:
    state = await handler.runs.latest_run("c")
    return state is not None and state.entries >= count


async def test_a_cancelled_run_stops_and_keeps_its_part(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis]
) -> None:
    """A cancel interrupts an agent that waits; the partial answer stays, and the next turn works."""
    agent = ScriptedAgent(*said("partial"), asyncio.Event(), *said("never"))
    leases = LeaseKeeper(new_client, TTL)
    conversation = DurableConversation(handler, agent, leases=leases)
    running = conversation.start("r")
    await until(lambda: _has_entries(handler, 1))
    await handler.runs.request_cancel("c", "r")
    await asyncio.wait_for(running, BOUND)
    await asyncio.to_thread(leases.close)
    chunks = await read_all(handler, "c")
    assert [chunk.text for chunk in chunks] == ["partial", None]
    assert chunks[-1].is_done
    assert chunks[-1].status is RunStatus.CANCELLED
    assert agent.closed == 1
    answer = find_answer("Scripted", conversation.saved, "r")
    assert answer is not None
    assert (answer.text, answer.code) == ("partial", "cancelled")
    agent.steps = tuple(said("next"))
    await conversation.run("r2")
    assert text_of(await read_all(handler, "c")) == "next"


async def test_a_run_cancelled_before_it_begins_never_calls_the_model(
    handler: RedisStreamResponseHandler,
) -> None:
    """What was cancelled while it waited for its turn is not executed."""
    agent = ScriptedAgent(*said("never"))
    state = await handler.runs.register("c", "r", "Scripted")
    await handler.runs.cancel_unstarted(state)
    with pytest.raises(asyncio.CancelledError):
        await DurableConversation(handler, agent).start("r")
    assert agent.runs == 0


async def test_what_was_not_streamed_is_appended(handler: RedisStreamResponseHandler) -> None:
    """The final response wins: its missing end is appended before the terminal."""
    final = AgentResponse(messages=[Message(role="assistant", contents=["Hello world"])])
    agent = ScriptedAgent(*said("Hello "), final=final)
    await DurableConversation(handler, agent).run("r")
    assert shape(await read_all(handler, "c")) == ["Hello ", "world", None]


async def test_a_final_text_that_differs_resets(handler: RedisStreamResponseHandler) -> None:
    """Where the final response is another text, readers are told to discard, then get it."""
    final = AgentResponse(messages=[Message(role="assistant", contents=["Goodbye"])])
    agent = ScriptedAgent(*said("Hello "), final=final)
    await DurableConversation(handler, agent).run("r")
    chunks = await read_all(handler, "c")
    assert [chunk.type for chunk in chunks] == [None, "reset", None, None]
    assert text_of(chunks) == "Goodbye"


async def test_a_repeated_whole_text_is_not_doubled(handler: RedisStreamResponseHandler) -> None:
    """A provider that repeats the whole text at the end ("replace") adds nothing to the stream."""
    repeated = [Content.from_text("Hello world", merge_mode="replace")]
    agent = ScriptedAgent(*said("Hello ", "world"), repeated)
    await DurableConversation(handler, agent).run("r")
    assert shape(await read_all(handler, "c")) == ["Hello ", "world", None]


async def test_a_text_that_only_comes_whole_is_streamed(handler: RedisStreamResponseHandler) -> None:
    """A provider that sends nothing but a replacing text still gets it into the stream."""
    agent = ScriptedAgent([Content.from_text("Hello", merge_mode="replace")])
    await DurableConversation(handler, agent).run("r")
    assert text_of(await read_all(handler, "c")) == "Hello"


async def test_what_is_not_text_becomes_typed_entries(handler: RedisStreamResponseHandler) -> None:
    """Tool calls (their fragments joined), results, reasoning and usage have entries of their own."""
    agent = ScriptedAgent(
        [Content.from_text_reasoning(text="hm")],
        [Content.from_function_call("call-1", "get_weather", arguments='{"city":')],
        [Content.from_function_call("call-1", "", arguments='"Tokyo"}')],
        [Content.from_usage({"input_token_count": 3})],
        [Content.from_function_result("call-1", result="sunny")],
        *said("It is sunny."),
    )
    await DurableConversation(handler, agent).run("r")
    assert shape(await read_all(handler, "c")) == [
        ("reasoning", {"text": "hm"}),
        ("tool_call", {"call_id": "call-1", "name": "get_weather", "arguments": '{"city":"Tokyo"}'}),
        ("usage", {"input_token_count": 3}),
        ("tool_result", {"call_id": "call-1", "result": "sunny"}),
        "It is sunny.",
        None,
    ]


async def test_a_tool_call_is_shown_while_the_tool_runs(handler: RedisStreamResponseHandler) -> None:
    """Where a provider says that its tools are to be called, readers see the call before the result."""
    tool_ends = asyncio.Event()
    call = Content.from_function_call("call-1", "get_weather", arguments="{}")
    agent = ScriptedAgent(
        AgentResponseUpdate(contents=[call], role="assistant", finish_reason="tool_calls"),
        tool_ends,
        [Content.from_function_result("call-1", result="sunny")],
    )
    running = asyncio.create_task(DurableConversation(handler, agent).run("r"))
    try:
        await until(lambda: stored(handler, "tool_call"))
    finally:
        tool_ends.set()
        await running


async def stored(handler: RedisStreamResponseHandler, kind: str) -> bool:
    """Whether an entry of this type is in the stream."""
    entries: Any = await handler._redis.xrange(handler.stream_key("c"))
    return any(values.get(b"type") == kind.encode() for _, values in entries)


AWKWARD = ["a\r", "\nb", "\ud83d", "\ude42", "lone \ud800 half", "", "\n\nevent: done\ndata: x", "é" * 70_000]


async def test_awkward_text_arrives_whole(handler: RedisStreamResponseHandler) -> None:
    """Split line ends and surrogates are joined, lone halves replaced, and nothing resets the answer."""
    await DurableConversation(handler, ScriptedAgent(*said(*AWKWARD))).run("r")
    chunks = await read_all(handler, "c")
    assert text_of(chunks) == "a\r\nb🙂lone \ufffd half\n\nevent: done\ndata: x" + "é" * 70_000
    assert {chunk.type for chunk in chunks} == {None}


async def test_an_agent_that_can_not_stream_is_streamed_at_its_end(
    handler: RedisStreamResponseHandler,
) -> None:
    """An agent whose run gives a whole response has it in the stream."""

    class Whole(ScriptedAgent):
        def run(self, messages: Any = None, **_kwargs: Any) -> Any:
            return super().run(messages)

    await DurableConversation(handler, Whole(*said("whole"))).run("r")
    assert text_of(await read_all(handler, "c")) == "whole"


async def test_a_settled_run_stops_its_agent(handler: RedisStreamResponseHandler) -> None:
    """An execution whose run was ended by others writes nothing more and keeps nothing."""
    pause = asyncio.Event()
    agent = ScriptedAgent(*said("a"), pause, *said("b"), *said("c"))
    conversation = DurableConversation(handler, agent)
    running = conversation.start("r")
    await until(lambda: _has_entries(handler, 1))
    state = await handler.runs.latest_run("c")
    assert state is not None
    await handler.runs.fail_unstarted(state)
    pause.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [chunk.text for chunk in await read_all(handler, "c")] == ["a", None]
    assert conversation.saved == {}


async def test_a_renewal_that_sees_the_end_first_costs_no_turn(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease keeper that sees the run's own terminal before the run is let go takes away no turn."""
    leases = LeaseKeeper(new_client, TTL)
    append = handler.runs.append

    async def append_and_be_seen(attempt: Attempt, first: int, entries: Sequence[NewEntry]) -> Appended:
        appended = await append(attempt, first, entries)
        if entries[-1].status is not None:
            leases.stop_all()
        return appended

    monkeypatch.setattr(handler.runs, "send_append", sending_by(append_and_be_seen))
    conversation = DurableConversation(handler, ScriptedAgent(*said("kept")), leases=leases)
    try:
        await conversation.run("r")
    finally:
        await asyncio.to_thread(leases.close)
    answer = find_answer("Scripted", conversation.saved, "r")
    assert answer is not None
    assert answer.text == "kept"


@pytest.mark.parametrize("flushed_after", [1, 3])
async def test_a_stream_that_is_lost_in_mid_run_is_written_again(
    handler: RedisStreamResponseHandler, redis: Redis, flushed_after: int
) -> None:
    """When the store forgets a run in progress, its readers get the whole answer once more, after a reset."""
    steps = said("one ", "two ", "three ")
    pause = asyncio.Event()
    agent = ScriptedAgent(*steps[:flushed_after], pause, *steps[flushed_after:])
    conversation = DurableConversation(handler, agent)
    running = conversation.start("r")
    await until(lambda: _has_entries(handler, flushed_after))
    reading = asyncio.create_task(read_all(handler, "c"))
    await until(lambda: subscribers(redis, 1))
    await redis.flushall()
    pause.set()
    await running
    chunks = await reading
    assert text_of(chunks) == text_of(await read_all(handler, "c")) == "one two three "
    assert chunks[-1].status is RunStatus.COMPLETED


async def test_a_run_without_its_stream_lets_its_lease_go(
    handler: RedisStreamResponseHandler, new_client: Callable[[], Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Redis stays away too long the agent goes on, its answer is kept, and its lease is let go."""

    async def away(*_arguments: Any) -> None:
        raise RedisConnectionError

    leases = LeaseKeeper(new_client, TTL)
    pause = asyncio.Event()
    conversation = DurableConversation(
        handler, ScriptedAgent(*said("one "), pause, *said("two")), leases=leases
    )
    running = conversation.start("r")
    await until(lambda: _has_entries(handler, 1))
    monkeypatch.setattr(handler.runs, "send_append", sending_by(away))
    monkeypatch.setattr("streaming.writing.writer.RETRY_MOST", TTL / 1_000_000)
    (stream,) = conversation._callback._runs.values()
    monkeypatch.setattr(stream._writer, "_patience", 0.01)
    assert leases.running() == [("c", "r")]
    pause.set()
    assert (await running).text == "one two"
    assert leases.running() == []
    await asyncio.to_thread(leases.close)


async def test_runs_that_nobody_registered_are_streamed(
    handler: RedisStreamResponseHandler, redis: Redis
) -> None:
    """A run started by others than the HTTP routes registers itself."""
    assert await redis.dbsize() == 0
    await DurableConversation(handler, ScriptedAgent(*said("hi"))).run("r")
    state = await handler.runs.latest_run("c")
    assert state is not None
    assert (state.agent, state.status) == ("Scripted", RunStatus.COMPLETED)


async def test_fifty_runs_at_once_stay_apart(handler: RedisStreamResponseHandler) -> None:
    """Fifty conversations run at once through one callback's store, and none mixes with another."""

    async def one(number: int) -> None:
        texts = [f"{number}-{chunk} " for chunk in range(30)]
        conversation = DurableConversation(handler, ScriptedAgent(*said(*texts)), f"c{number}")
        await conversation.run(f"r{number}")
        assert [chunk.text for chunk in await read_all(handler, f"c{number}")] == [*texts, None]

    await asyncio.gather(*(one(number) for number in range(50)))
