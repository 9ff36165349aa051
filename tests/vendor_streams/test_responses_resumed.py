"""Responses whose connection breaks, and the Responses API without an event loop."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import timedelta

import pytest
from openai import APIConnectionError

from bridges.background_streams import BackgroundStreams
from bridges.openai_responses import ResponseReader, ResponseRecorder, recorders
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import NewEntry, RunStatus
from streaming.writing.leases import LeaseKeeper
from tests.contract.reading import begin
from tests.redis_server import RedisServer
from tests.vendor_streams import responses_service as service
from tests.vendor_streams.endpoint import Answer, Request, json_answer, local_endpoint
from tests.vendor_streams.recorded import BOUND, TTL, recorded, text_of, types_of
from tests.vendor_streams.test_responses import Seen, read, record


def _resumed(sent: Seen, after: int) -> Answer:
    """What the API gives from after a number on."""
    return Answer(service.body([event for event in sent if event["sequence_number"] > after]))


async def _cut_and_resumed(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, answer: Answer
) -> None:
    sent = service.whole()
    async with local_endpoint(answer) as endpoint:
        # Answers what it is asked for: after the last whole event.
        endpoint.respond = lambda request: _resumed(sent, int(request.query["starting_after"]))
        if answer.cut_at is not None and b"\n\n" not in answer.body[: answer.cut_at]:
            with pytest.raises(APIConnectionError) if answer.chunked else nullcontext():
                await record(handler, leases, conversation, endpoint)
            return
        seen = await record(handler, leases, conversation, endpoint)
    assert [event["sequence_number"] for event in seen] == list(range(len(sent)))
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), chunks[-1].status) == (service.ANSWER, RunStatus.COMPLETED)
    assert "reset" not in types_of(chunks)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_cut_response_in_the_background_is_resumed(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, chunked: bool
) -> None:
    """Wherever the answer is cut, as an error or as an end, it goes on there, each event once."""
    body = service.body(service.whole())
    # In mid-character too, which the SDK takes for a broken text.
    for cut_at in [*range(0, len(body), len(body) // 10), body.index("🌸".encode()) + 1]:
        answer = Answer(body, cut_at=cut_at, chunked=chunked)
        await _cut_and_resumed(handler, leases, f"{conversation}-{cut_at}", answer)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_response_cut_at_any_byte_is_resumed(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, chunked: bool
) -> None:
    """At each third byte of the answer."""
    body = service.body(service.whole())
    for cut_at in range(0, len(body), 3):
        answer = Answer(body, cut_at=cut_at, chunked=chunked)
        await _cut_and_resumed(handler, leases, f"{conversation}-{cut_at}", answer)


async def test_a_response_that_is_cut_again_and_again(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A response whose connection breaks after every few bytes, and whose API is away at times, is whole."""
    sent = service.whole()
    tries = 0

    def respond(request: Request) -> Answer:
        nonlocal tries
        tries += 1
        if tries % 2:
            return json_answer({"error": {"message": "away"}}, 503)
        # It gives the last event once more.
        answer = _resumed(sent, int(request.query["starting_after"]) - 1)
        return Answer(
            answer.body, cut_at=answer.body.index(b"\n\n", answer.body.index(b"\n\n") + 2) + 2 + tries
        )

    body = service.body(sent)
    async with local_endpoint(Answer(body, cut_at=body.index(b"\n\n") + 2)) as endpoint:
        endpoint.respond = respond
        seen = await record(handler, leases, conversation, endpoint)
    assert [event["sequence_number"] for event in seen] == list(range(len(sent)))
    assert text_of(await recorded(handler, conversation)) == service.ANSWER


@pytest.mark.parametrize("text", [service.ANSWER, "another answer"])
async def test_events_that_are_gone(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, text: str
) -> None:
    """Where the API has the response and no more its events, the run ends with what the response says."""
    body = service.body(service.whole())

    def respond(request: Request) -> Answer:
        if "stream" in request.query:
            return json_answer({"error": {"message": "too late"}}, 400)
        # It may still be going on when it is first looked at.
        is_over = len(endpoint.requests) > 3
        return json_answer(
            service.response("completed", [service.message_item(text)])
            if is_over
            else service.response("in_progress")
        )

    async with local_endpoint(Answer(body, cut_at=body.index("🌸".encode()))) as endpoint:
        endpoint.respond = respond
        seen = await record(handler, leases, conversation, endpoint)
    assert seen[-1]["type"] == "response.completed"
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), chunks[-1].status) == (text, RunStatus.COMPLETED)
    assert ("reset" in types_of(chunks)) == (text != service.ANSWER)


async def test_a_response_that_stays_away(
    handler: RedisStreamResponseHandler,
    leases: LeaseKeeper,
    conversation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the API stays away, the run ends with a reason, and the program gets the SDK's error."""
    monkeypatch.setattr(recorders, "RESUME_PATIENCE", timedelta(milliseconds=300))
    body = service.body(service.whole())
    async with local_endpoint(Answer(body, cut_at=len(body) // 2)) as endpoint:
        with pytest.raises(APIConnectionError):
            await record(handler, leases, conversation, endpoint)
    end = (await recorded(handler, conversation))[-1]
    assert (end.status, end.code) == (RunStatus.INTERRUPTED, "connection_lost")
    last, _ = (await read(handler, conversation))[-1]
    assert (last["type"], last["code"]) == ("error", "connection_lost")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_response_in_the_foreground_ends_with_its_connection(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str, chunked: bool
) -> None:
    """Without background mode nothing is asked for again: the run ends with a reason."""
    body = service.body(service.whole(background=False))
    answer = Answer(body, cut_at=body.index("🌸".encode()), chunked=chunked)
    async with local_endpoint(answer) as endpoint:
        with pytest.raises(APIConnectionError) if chunked else nullcontext():
            await record(handler, leases, conversation, endpoint)
        assert len(endpoint.requests) == 1
    chunks = await recorded(handler, conversation)
    assert service.ANSWER.startswith(text_of(chunks))
    assert (chunks[-1].status, chunks[-1].code) == (RunStatus.INTERRUPTED, "connection_lost")


async def test_a_cancel_reaches_the_api(
    handler: RedisStreamResponseHandler, leases: LeaseKeeper, conversation: str
) -> None:
    """A run that its readers cancel ends at once, and its response in the background is cancelled too."""
    body = service.body(service.whole())
    answer = Answer(body, hold_at=body.index("🌸".encode()))
    async with local_endpoint(answer, json_answer(service.response("cancelled"))) as endpoint:
        running = asyncio.create_task(record(handler, leases, conversation, endpoint))
        await _until_text(handler, conversation)
        latest = await handler.runs.latest_run(conversation)
        assert latest is not None
        await handler.runs.request_cancel(conversation, latest.run)
        await running
        assert endpoint.requests[-1].path == f"/responses/{service.RESPONSE}/cancel"
    assert (await recorded(handler, conversation))[-1].status is RunStatus.CANCELLED


async def _until_text(handler: RedisStreamResponseHandler, conversation: str) -> None:
    async with asyncio.timeout(BOUND):
        async for chunk in handler.read_stream(conversation):
            if chunk.text:
                return


async def test_other_streams(handler: RedisStreamResponseHandler, conversation: str) -> None:
    """A run of this project's own agents reads as deltas too; ``reset`` is the stream's own chunk."""
    attempt = await begin(handler, conversation, "r", "first")
    await handler.runs.append(attempt, attempt.next_sequence, [NewEntry(1, "wrong")])
    attempt = await begin(handler, conversation, "r", "second")
    said = [NewEntry(1, "right"), NewEntry(1, status=RunStatus.COMPLETED)]
    await handler.runs.append(attempt, attempt.next_sequence, said)
    given = [event for event, _ in await read(handler, conversation)]
    assert [event.get("delta", event["type"]) for event in given] == ["wrong", "reset", "right"]


def _blocking(server: RedisServer, url: str, conversation: str) -> tuple[RunStatus | None, list[str | None]]:
    """A program that records a response and then reads it, leaving once in the middle."""
    streams = BackgroundStreams(lambda: connect(server.url), TTL)
    with streams, service.client(url) as client:
        with ResponseRecorder(client, streams, conversation) as run:
            stream = client.responses.create(model="gpt-test", input="Plan a trip", stream=True)
            for _event in run.record(stream):
                pass
        with ResponseReader(streams, conversation) as reader:
            kinds: list[str | None] = [next(reader).type]
        with ResponseReader(streams, conversation, reader.cursor) as rest:
            kinds += [event.type for event in rest]
    return run.status, kinds


@pytest.mark.parametrize("cut", [False, True])
async def test_without_an_event_loop(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str, cut: bool
) -> None:
    """A blocking program records, resumes and reads as one with a loop does."""
    sent = service.whole()
    body = service.body(sent)
    answer = Answer(body, cut_at=len(body) // 2 if cut else None)
    async with asyncio.timeout(BOUND), local_endpoint(answer) as endpoint:
        endpoint.respond = lambda request: _resumed(sent, int(request.query["starting_after"]))
        status, kinds = await asyncio.to_thread(_blocking, redis_for_vendors, endpoint.url, conversation)
    assert status is RunStatus.COMPLETED
    assert kinds == [event["type"] for event in sent]
    assert text_of(await recorded(handler, conversation)) == service.ANSWER


async def test_a_blocking_response_in_the_foreground(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str
) -> None:
    """A connection that breaks is raised to a blocking program too, and ends the stream with a reason."""
    body = service.body(service.whole(background=False))
    async with local_endpoint(Answer(body, cut_at=len(body) // 2)) as endpoint:
        with pytest.raises(APIConnectionError):
            await asyncio.to_thread(_blocking, redis_for_vendors, endpoint.url, conversation)
    assert (await recorded(handler, conversation))[-1].code == "connection_lost"


async def test_a_blocking_response_that_is_cancelled(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer, conversation: str
) -> None:
    """A cancel is noticed at the next event, and reaches the API."""
    body = service.body(service.whole())
    answer = Answer(body, hold_at=body.index("🌸".encode()))
    async with local_endpoint(answer, json_answer(service.response("cancelled"))) as endpoint:
        running = asyncio.create_task(
            asyncio.to_thread(_blocking, redis_for_vendors, endpoint.url, conversation)
        )
        await _until_text(handler, conversation)
        latest = await handler.runs.latest_run(conversation)
        assert latest is not None
        await handler.runs.request_cancel(conversation, latest.run)
        answer.hold.set()
        status, _kinds = await running
        assert endpoint.requests[-1].path == f"/responses/{service.RESPONSE}/cancel"
    assert status is RunStatus.CANCELLED
