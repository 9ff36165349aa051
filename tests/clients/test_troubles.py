"""The Python client and a server in trouble: docs/protocol.md, sections 4 to 6."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from clients import (
    Reconnect,
    StreamClient,
    Unreachable,
)
from streaming.sse import encode_comment, encode_retry
from tests.clients.replay_server import (
    CONVERSATION,
    HURRY,
    Asked,
    Told,
    client_of,
    replaying,
)
from tests.clients.told import (
    RECORDING,
    TEXT,
    first_then_honest,
    part,
    refusal,
)


@pytest.mark.parametrize(
    "trouble",
    [
        refusal(503, "stream_unavailable"),
        refusal(503, "too_many_streams", **{"retry-after": "0"}),
        refusal(429, "too_many_streams"),
        refusal(500, "internal_error"),
        Told(b"Bad gateway", "502 Bad Gateway", {"content-type": "text/html"}),
        Told(encode_retry(0)),
        Told(b""),
        Told(cut=0),
        Told(encode_comment("heartbeat") * 3),
        part(1),
        part(2, b"id: 3-0\nevent: message\ndata: 3 da"),
        part(2, "id: 3-0\ndata: 3 days 🗼".encode()[:-2]),
    ],
)
async def test_trouble_that_passes(trouble: Told) -> None:
    """Whatever passes by itself, the text is the answer."""
    async with client_of(first_then_honest(trouble, trouble)) as (client, server):
        assert await client.text(CONVERSATION) == TEXT
    assert len(server.asked) == 3


async def test_a_stalled_connection_is_left() -> None:
    """A connection that is silent for longer than heartbeats take is dead: the client comes back."""
    patience = replace(HURRY, stall_after=timedelta(milliseconds=500))
    behave = first_then_honest(Told(hangs=True), part(1, hangs=True), part(0, b"data: x", hangs=True))
    async with client_of(behave, patience) as (client, server):
        assert await client.text(CONVERSATION) == TEXT
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, None, "1-0", "1-0"]


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_honoured(as_date: bool) -> None:
    """A service that says when to come back is not asked before, by whichever of the two forms."""
    told: list[Reconnect] = []
    refusals = iter([503])

    def behave(asked: Asked) -> Told:
        if (status := next(refusals, None)) is None:
            return RECORDING.answer(asked)
        # Counted from when it is said.
        moment = datetime.now(UTC) + timedelta(seconds=2)
        value = format_datetime(moment, usegmt=True) if as_date else "1"
        return refusal(status, "too_many_streams", **{"retry-after": value})

    async with (
        replaying(behave) as server,
        StreamClient(server.url, patience=HURRY, on_reconnect=told.append) as client,
    ):
        assert await client.text(CONVERSATION) == TEXT
    assert timedelta(milliseconds=500) < told[0].delay <= timedelta(seconds=2)


async def test_a_good_end_without_done_waits_for_retry() -> None:
    """After a good end that came before the run's, the client waits as long as ``retry`` says."""
    told: list[Reconnect] = []
    behave = first_then_honest(Told(part(1).body + encode_retry(300)))
    async with (
        replaying(behave) as server,
        StreamClient(server.url, patience=HURRY, on_reconnect=told.append) as client,
    ):
        assert await client.text(CONVERSATION) == TEXT
    assert told[0].delay == timedelta(milliseconds=300)


@pytest.mark.parametrize(
    "trouble", [refusal(503, "stream_unavailable"), Told(encode_retry(0)), Told(cut=0), part(0, b"data: ")]
)
async def test_giving_up(trouble: Told) -> None:
    """Without anything new for as long as the patience lasts, the client gives up, and tells the cursor."""
    patience = replace(HURRY, give_up_after=timedelta(seconds=1), longest_delay=timedelta(milliseconds=20))
    troubles = iter([part(2)])
    async with client_of(lambda _: next(troubles, trouble), patience) as (client, _):
        with pytest.raises(Unreachable) as caught:
            await client.text(CONVERSATION)
    assert caught.value.cursor == "2-0"
    assert caught.value.after >= patience.give_up_after


async def test_nobody_listens() -> None:
    """Where no service is, the client gives up in time."""
    async with replaying(RECORDING.answer) as server:
        url = server.url
    patience = replace(
        HURRY, give_up_after=timedelta(milliseconds=100), longest_delay=timedelta(milliseconds=20)
    )
    async with StreamClient(url, patience=patience) as client:
        for ask in (client.text("c"), client.status("a", "c"), client.run("a", "m"), client.cancel("a", "c")):
            with pytest.raises(Unreachable, match="no connection"):
                await ask


async def test_bytes_that_are_never_an_event_are_no_progress() -> None:
    """Bytes that keep coming and never make an event do not keep the client waiting for ever."""
    patience = replace(HURRY, give_up_after=timedelta(milliseconds=200))
    # All of an answer but its last chunk, which is five bytes.
    told = part(0, b"data: x")
    told = replace(told, cut=len(told.encoded()) - 5, drips=True)
    async with client_of(lambda _: told, patience) as (client, server):
        with pytest.raises(Unreachable):
            await client.text(CONVERSATION)
        assert len(server.asked) == 1
