"""The Python client over connections that end at any byte: docs/protocol.md, section 6.7."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import httpx
import pytest

from clients import StreamEvent, Text
from streaming.sse import ServerSentEventDecoder, encode_event
from tests.clients.replay_server import CONVERSATION, Asked, Recording, Told, client_of
from tests.raw_http import RawResponse
from tests.service import Service, finished_run, stream_path

#: Cuts that are tried at once.
AT_ONCE: Final = 20


async def record(service: Service, http: httpx.AsyncClient, message: str) -> tuple[str, Recording, bytes]:
    """A real answer: its durable text, and its stream with all events."""
    run = await finished_run(http, message)
    path = f"{stream_path(run['conversation_id'])}?events=all"
    body = await asyncio.to_thread(lambda: RawResponse(service, path).rest())
    return run["response"], Recording.of(body), body


async def cut_everywhere(recording: Recording, framing: str, text: str) -> list[StreamEvent]:
    """Read once for each byte of the response, which ends there; the events, the same each time."""
    whole = replace(recording.answer(Asked("GET", "/", {}, {})), framing=framing)
    cuts: dict[str, int] = {}

    def behave(asked: Asked) -> Told:
        told = replace(recording.answer(asked), framing=framing)
        # Each conversation's first connection is cut.
        return replace(told, cut=cuts.pop(asked.path.rpartition("/")[2], None))

    async with client_of(behave) as (client, server):
        expected = [event async for event in client.stream(CONVERSATION)]
        assert "".join(event.text for event in expected if isinstance(event, Text)) == text

        async def read(cut: int) -> None:
            cuts[f"c{cut}"] = cut
            assert [event async for event in client.stream(f"c{cut}")] == expected, f"cut after byte {cut}"

        size = len(whole.encoded())
        for first in range(0, size, AT_ONCE):
            await asyncio.gather(*(read(cut) for cut in range(first, min(size, first + AT_ONCE))))
        assert len(server.asked) > size
    return expected


async def test_real_answer_cut_at_every_byte(service: Service, http: httpx.AsyncClient) -> None:
    """Cut after any byte of a real response, its head included, the events are the same, the text exact."""
    text, recording, body = await record(service, http, "Tell me a joke")
    expected = await cut_everywhere(recording, "chunked", text)
    assert len(expected) == len(ServerSentEventDecoder().feed(body))


@pytest.mark.parametrize("framing", ["length", "close"])
async def test_cut_inside_characters_and_line_ends(framing: str) -> None:
    """Cut inside an emoji, between CR and LF, or where the cut looks like a good end: the text is exact."""
    texts = ("Ōsaka 🗼\n", "\n\n", "data: x", "日本\n語", "👩‍👩‍👧", ": ", "")
    recording = Recording.saying(*texts)
    recording.events = [
        (event_id, block.replace(b"\n", b"\r\n") if place % 2 else block)
        for place, (event_id, block) in enumerate(recording.events)
    ]
    await cut_everywhere(recording, framing, "".join(texts))


async def test_every_connection_is_cut(service: Service, http: httpx.AsyncClient) -> None:
    """Though no connection brings more than a few events, the whole of a long answer with tools is exact."""
    text, recording, body = await record(service, http, "Plan a 1-day trip to Oslo")
    longest = max(len(block) for _, block in recording.events)

    def behave(asked: Asked) -> Told:
        # The head and the chunks' own bytes take some.
        return replace(recording.answer(asked), cut=longest + 400)

    async with client_of(behave) as (client, server):
        events = [event async for event in client.stream(CONVERSATION, all_events=True)]
        assert await client.text(CONVERSATION) == text
    assert [event.cursor for event in events] == [event.id for event in ServerSentEventDecoder().feed(body)]
    assert len(server.asked) > 20


async def test_duplicates_are_dropped_by_number() -> None:
    """What comes twice is given once; ids are compared as numbers, so 9-9 comes before 9-10 and 10-0."""
    ids = ["9-2", "9-9", "9-10", "10-0", "100-0"]
    blocks = [(event_id, encode_event("message", f"<{event_id}>", entry_id=event_id)) for event_id in ids]
    end = ("100-1", encode_event("done", "[DONE]", entry_id="100-1"))
    doubled = [block for place in range(len(blocks)) for block in blocks[: place + 1]]

    def behave(asked: Asked) -> Told:
        # It always begins at the beginning.
        return Told(Recording([*doubled, end]).after(None), cut=None if asked.cursor else 700)

    async with client_of(behave) as (client, server):
        assert await client.text(CONVERSATION) == "".join(f"<{event_id}>" for event_id in ids)
    assert len(server.asked) == 2
