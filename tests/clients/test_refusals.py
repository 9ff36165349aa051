"""What the Python client is refused, never does twice, and never shows: docs/protocol.md, section 5."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from clients import (
    AccessDenied,
    AgentNotFound,
    ClientError,
    ConversationNotFound,
    InvalidCursor,
    InvalidRequest,
    OutcomeUnknown,
    Patience,
    RunNotFound,
    StreamClient,
    TokenExpired,
    UnexpectedAnswer,
)
from tests.clients.replay_server import (
    CONVERSATION,
    HURRY,
    Asked,
    Told,
    client_of,
    replaying,
)
from tests.clients.told import (
    ACCEPTED,
    HTML,
    JSON,
    RECORDING,
    TEXT,
    refusal,
)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (refusal(400, "invalid_cursor"), InvalidCursor),
        (refusal(400, "invalid_request"), InvalidRequest),
        (refusal(401, "unauthorized"), AccessDenied),
        (refusal(401, "token_expired"), TokenExpired),
        (refusal(403, "forbidden"), AccessDenied),
        (Told(b"", "401 No", {}, framing="length"), AccessDenied),
        (refusal(404, "conversation_not_found"), ConversationNotFound),
        (refusal(404, "run_not_found"), RunNotFound),
        (refusal(404, "agent_not_found"), AgentNotFound),
        (refusal(409, "not_a_stream"), ClientError),
        (HTML, UnexpectedAnswer),
        (Told(b"", "302 Found", {"location": "http://127.0.0.1:1/"}, framing="length"), UnexpectedAnswer),
        (Told(b"<html>", "404 Not Found", {"content-type": "text/html"}), UnexpectedAnswer),
    ],
)
async def test_refusals(told: Told, kind: type[ClientError]) -> None:
    """What does not pass by itself is raised at once, as what it is."""
    async with client_of(lambda _: told) as (client, server):
        with pytest.raises(kind):
            await client.text(CONVERSATION)
        assert len(server.asked) == 1


@pytest.mark.parametrize("trouble", [refusal(503, "too_many_runs"), refusal(429, "x")])
async def test_a_run_that_was_not_started_is_started_again(trouble: Told) -> None:
    """A run is asked for again where the service says that it did nothing."""
    troubles = iter([trouble])
    async with client_of(lambda _: next(troubles, ACCEPTED)) as (client, server):
        assert (await client.run("a", "m")).run == "r"
        assert len(server.asked) == 2


@pytest.mark.parametrize("cut", [0, 20, 150])
async def test_a_run_is_never_started_twice(cut: int) -> None:
    """Where a run may have been started and the answer is lost, it is not asked for again."""
    async with client_of(lambda _: replace(ACCEPTED, cut=cut)) as (client, server):
        with pytest.raises(OutcomeUnknown):
            await client.run("a", "m")
        assert len(server.asked) == 1


@pytest.mark.parametrize("told", [Told(b"Bad gateway", "502 Bad Gateway", {}), Told(b"", "504 Late", {})])
async def test_a_gateway_that_does_not_know(told: Told) -> None:
    """A gateway that lost the service may have passed the request on: it is not sent again."""
    async with client_of(lambda _: told) as (client, _):
        with pytest.raises(OutcomeUnknown):
            await client.run("a", "m")


async def test_waiting_is_reading() -> None:
    """A run that is waited for is read, so that cuts cost nothing; its token goes along, in no URL."""

    def behave(asked: Asked) -> Told:
        if asked.method == "POST":
            return ACCEPTED
        return replace(RECORDING.answer(asked), cut=250)

    async with client_of(behave) as (client, server):
        run = await client.run("a", "m", wait=True)
    assert run.answer is not None
    assert run.answer.text == TEXT
    assert {asked.headers.get("x-stream-token") for asked in server.asked[1:]} == {"t.o.k"}
    assert {asked.query["run"] for asked in server.asked[1:]} == {"r"}
    assert not any("t.o.k" in asked.path + str(asked.query) for asked in server.asked)


async def test_secrets_are_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """No key or token is in a URL, a log of any level, a representation or an error."""
    caplog.set_level(logging.DEBUG)
    key, given = "key-nobody-may-see", "token-nobody-may-see"
    accepted = replace(ACCEPTED, headers={**JSON, "x-stream-token": "made-nobody-may-see"})
    troubles = iter([accepted, refusal(401, "unauthorized"), refusal(503, "x"), refusal(401, "unauthorized")])
    shown = []
    async with (
        replaying(lambda _: next(troubles)) as server,
        StreamClient(server.url, api_key=key, stream_token=given, patience=HURRY) as client,
    ):
        shown += [repr(client), str(vars(client)), repr(await client.run("a", "m"))]
        for conversation_id in ("c", "other"):
            with pytest.raises(AccessDenied) as caught:
                await client.text(conversation_id)
            shown.append(repr(caught.value))
    assert server.asked[0].headers["x-functions-key"] == key
    assert [asked.headers["x-stream-token"] for asked in server.asked] == [given, "t.o.k", given, given]
    shown += [caplog.text, *(f"{asked.path}{asked.query}" for asked in server.asked)]
    assert "reconnecting" in caplog.text
    assert not [text for text in shown for secret in (key, "nobody-may-see", "t.o.k") if secret in text]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: StreamClient("localhost:7071"), "base_url"),
        (lambda: StreamClient("http://user:secret@localhost"), "base_url"),
        (lambda: StreamClient("http://localhost?code=secret"), "base_url"),
        (lambda: StreamClient("http://localhost", api_key="secret\r\nx: y"), "api_key"),
        (lambda: StreamClient("http://localhost", stream_token=""), "stream_token"),
        (lambda: Patience(stall_after=timedelta(0)), "stall_after"),
        (lambda: Patience(first_delay=timedelta(seconds=-1)), "first_delay"),
    ],
)
def test_options_that_can_not_be_used(make: Callable[[], object], name: str) -> None:
    """An option that can't be used is named at once, and its value not shown where it may be secret."""
    with pytest.raises(ClientError, match=f"^{name}: ") as caught:
        make()
    assert "secret" not in str(caught.value)
