"""The Responses API in the stream: the vendor's clients, a local service, a real Redis."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI, RateLimitError

from bridges.openai_responses import (
    AsyncResponseReader,
    AsyncResponseRecorder,
)
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import RunStatus, StreamChunk
from streaming.writing.leases import LeaseKeeper
from tests.vendor_streams import responses_service as service
from tests.vendor_streams.endpoint import Answer, Endpoint, json_answer, local_endpoint
from tests.vendor_streams.recorded import BOUND, recorded, text_of, types_of

Seen = list[dict[str, Any]]


async def respond(client: AsyncOpenAI, run: AsyncResponseRecorder, **more: Any) -> Seen:
    """Create a response as the documentation does; its events without their padding."""
    seen: Seen = []
    stream = await client.responses.create(
        model="gpt-test", input="Plan a trip", stream=True, background=True, **more
    )
    async for event in run.record(stream):
        seen.append({name: value for name, value in event.to_dict().items() if name != "obfuscation"})
    return seen


async def record(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, endpoint: Endpoint
) -> Seen:
    """A run of one response."""
    async with (
        asyncio.timeout(BOUND),
        service.async_client(endpoint.url) as client,
        AsyncResponseRecorder(client, handler, conversation, leases=leases) as run,
    ):
        return await respond(client, run)


def public(seen: Seen) -> Seen:
    """Without what readers are not to see."""
    private = ("instructions", "tools")
    return [
        {
            name: {key: held for key, held in value.items() if key not in private}
            if name == "response"
            else value
            for name, value in event.items()
        }
        for event in seen
    ]


async def read(
    handler: RedisStreamResponseHandler, conversation: str, cursor: str | None = None
) -> list[tuple[dict[str, Any], str | None]]:
    """Each event of a reader, and its cursor."""
    async with asyncio.timeout(BOUND), AsyncResponseReader(handler, conversation, cursor) as reader:
        return [
            ({"type": event.type} if isinstance(event, StreamChunk) else event.to_dict(), reader.cursor)
            async for event in reader
        ]


async def test_a_response_is_recorded(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """The deltas are the text, each other event an entry of its type, and the response's end the terminal."""
    async with local_endpoint(Answer(service.body(service.whole()))) as endpoint:
        seen = await record(handler, leases, conversation, endpoint)
    assert [event["type"] for event in seen] == [event["type"] for event in service.whole()]
    chunks = await recorded(handler, conversation)
    assert text_of(chunks) == service.ANSWER
    told = [kind for kind in types_of(chunks) if kind.startswith("response.")]
    sent = [event["type"] for event in service.whole()]
    # Of four deltas, one entry without text: where they belong.
    assert told == [*sent[:5], *sent[8:]]
    assert types_of(chunks)[-2:] == ["usage", "completed"]
    assert "secret" not in str([chunk.data for chunk in chunks])


async def test_a_reader_sees_what_the_producer_saw(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Each event comes again as it was, log probabilities and numbers too; from any cursor, the rest does."""
    chance = [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]
    deltas = [service.delta("a"), service.delta("b", logprobs=chance), service.delta(""), service.delta("cd")]
    unknown = {"type": "response.new_thing", "a": [1, None]}
    sent = service.numbered(
        *service.beginning(), *deltas, unknown, *service.message(("e",)), service.whole()[-1]
    )
    sent[-1]["response"]["output"] = []
    async with local_endpoint(Answer(service.body(sent))) as endpoint:
        seen = await record(handler, leases, conversation, endpoint)
    whole = await read(handler, conversation)
    assert [event for event, _ in whole][:8] == public(seen)[:8]
    for place, (_, cursor) in enumerate(whole, start=1):
        assert await read(handler, conversation, cursor) == whole[place:]


@pytest.mark.parametrize(
    ("ended", "end"),
    [
        ("failed", (RunStatus.FAILED, "agent_failed")),
        ("incomplete", (RunStatus.FAILED, "incomplete")),
        ("cancelled", (RunStatus.CANCELLED, None)),
    ],
)
async def test_the_terminal_says_how_the_response_ended(
    handler: RedisStreamResponseHandler,
    leases: LeaseKeeper,
    conversation: str,
    *,
    ended: str,
    end: tuple[RunStatus, str | None],
) -> None:
    """The response's last event decides, and readers get it as the last one."""
    last = {"type": f"response.{ended}", "response": service.response(ended)}
    sent = service.numbered(*service.beginning(), service.delta("so far"), last)
    async with local_endpoint(Answer(service.body(sent))) as endpoint:
        seen = await record(handler, leases, conversation, endpoint)
    terminal = (await recorded(handler, conversation))[-1]
    assert (terminal.status, terminal.code) == end
    assert [event for event, _ in await read(handler, conversation)] == public(seen)


async def test_an_error_event(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """An ``error`` event fails the run; its readers get the event itself."""
    error = {"type": "error", "code": "server_error", "message": "no", "param": None}
    sent = service.numbered(*service.beginning(), error)
    async with local_endpoint(Answer(service.body(sent))) as endpoint:
        seen = await record(handler, leases, conversation, endpoint)
    assert (await recorded(handler, conversation))[-1].status is RunStatus.FAILED
    assert [event for event, _ in await read(handler, conversation)] == public(seen)


async def test_an_error_that_the_sdk_raises(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """What the SDK raises in mid-answer, or for the request, fails the run."""
    sent = [*service.whole()[:3], {"type": "error", "error": {"message": "no"}, "sequence_number": 3}]
    async with local_endpoint(Answer(service.body(sent))) as endpoint:
        with pytest.raises(APIError):
            await record(handler, leases, conversation, endpoint)
    refusal = json_answer({"error": {"message": "quota"}}, 429)
    async with local_endpoint(refusal) as endpoint:
        with pytest.raises(RateLimitError):
            await record(handler, leases, f"{conversation}-2", endpoint)
    for name in (conversation, f"{conversation}-2"):
        end = (await recorded(handler, name))[-1]
        assert (end.status, end.code, end.error) == (RunStatus.FAILED, "agent_failed", "The agent failed.")


async def test_function_calls(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A response that calls a function and the one that gets its output are one run."""
    answers = [Answer(service.body(service.calling_function())), Answer(service.body(service.whole()))]
    async with (
        local_endpoint(*answers) as endpoint,
        service.async_client(endpoint.url) as client,
        AsyncResponseRecorder(client, handler, conversation, leases=leases) as run,
    ):
        first = await respond(client, run)
        waiting = run.status
        second = await respond(client, run, previous_response_id=service.RESPONSE)
    assert (waiting, run.status) == (None, RunStatus.COMPLETED)
    chunks = await recorded(handler, conversation)
    called = next(chunk for chunk in chunks if chunk.type == "tool_call")
    assert called.data == {"call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Kyōto"}'}
    assert (text_of(chunks), types_of(chunks).count("completed")) == (service.ANSWER, 1)
    assert [event for event, _ in await read(handler, conversation)] == public(first + second)


async def _call_nothing(client: AsyncOpenAI, run: AsyncResponseRecorder, *, fails: bool) -> None:
    async with run:
        await respond(client, run)
        if fails:
            raise ZeroDivisionError


@pytest.mark.parametrize("fails", [True, False])
async def test_a_program_that_answers_no_call(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, fails: bool
) -> None:
    """A run whose last response calls a function ends with its program: well, or by the program's error."""
    answer = Answer(service.body(service.calling_function()))
    async with local_endpoint(answer) as endpoint, service.async_client(endpoint.url) as client:
        run = AsyncResponseRecorder(client, handler, conversation, leases=leases)
        with pytest.raises(ZeroDivisionError) if fails else nullcontext():
            await _call_nothing(client, run, fails=fails)
    assert run.status is (RunStatus.FAILED if fails else RunStatus.COMPLETED)


async def test_the_complete_text_wins(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """Where the complete text differs from its deltas, readers start again with the right one."""
    message = service.message(("wrong",))
    for event in message[3:]:
        event.update(text="right") if "text" in event else None
    end = {
        "type": "response.completed",
        "response": service.response("completed", [service.message_item("right, all")]),
    }
    async with local_endpoint(
        Answer(service.body(service.numbered(*service.beginning(), *message, end)))
    ) as endpoint:
        await record(handler, leases, conversation, endpoint)
    chunks = await recorded(handler, conversation)
    assert [chunk.text for chunk in chunks if chunk.text] == ["wrong", "right", ", all"]
    assert types_of(chunks).count("reset") == 1
    given = [event for event, _ in await read(handler, conversation)]
    assert [event["delta"] for event in given if "delta" in event] == ["wrong", "right", ", all"]
