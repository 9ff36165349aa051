"""When a run is pushed: as soon as somebody has joined; never in the agent's way."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate
from agent_framework_durabletask import AgentCallbackContext
from redis.exceptions import ConnectionError as RedisConnectionError

from bridges.signalr import callback as module
from bridges.signalr.callback import SignalRCallback
from streaming.writing.run_control import current_run

UPDATE = AgentResponseUpdate(contents=[], role="assistant")
FINAL: AgentResponse[Any] = AgentResponse(messages=[])


def context(run: str = "r") -> AgentCallbackContext:
    return AgentCallbackContext("A", run, session_id="c", request_message="secret")


class Audience:
    """Somebody or nobody; or Redis is away."""

    def __init__(self) -> None:
        self.somebody = False
        self.trouble: Exception | None = None
        self.asked = 0

    async def is_joined(self, conversation_id: str) -> bool:
        """Whether there is somebody."""
        assert (conversation_id, current_run.get()) == ("c", None)
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        return self.somebody


@pytest.fixture
def audience() -> Audience:
    return Audience()


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that are pushed."""
    runs: list[str] = []

    class Pusher:
        def __init__(self, *_parts: object) -> None: ...

        async def push(self, conversation_id: str, run: str) -> None:
            assert conversation_id == "c"
            runs.append(run)

    monkeypatch.setattr(module, "RunPusher", Pusher)
    return runs


@pytest.fixture
def callback(audience: Audience, pushed: list[str]) -> SignalRCallback:
    assert pushed == []
    return SignalRCallback(
        lambda: cast("Any", None), lambda: cast("Any", None), lambda: cast("Any", audience)
    )


async def settle(callback: SignalRCallback) -> None:
    """Until what was begun is done."""
    await asyncio.gather(*callback._tasks)


async def test_a_run_with_an_audience_is_pushed_once(
    callback: SignalRCallback, audience: Audience, pushed: list[str]
) -> None:
    """The first update of a run has it pushed; its later ones, and its end, change nothing."""
    audience.somebody = True
    for _ in range(3):
        await callback.on_streaming_response_update(UPDATE, context())
        await settle(callback)
    await callback.on_agent_response(FINAL, context())
    await settle(callback)
    assert pushed == ["r"]
    assert callback._watches == {}


async def test_a_run_without_an_audience_costs_little(
    callback: SignalRCallback, audience: Audience, pushed: list[str]
) -> None:
    """It is looked for an audience once, however many updates come; and once more at the end."""
    for _ in range(100):
        await callback.on_streaming_response_update(UPDATE, context())
        await settle(callback)
    assert audience.asked == 1
    audience.somebody = True
    await callback.on_agent_response(FINAL, context())
    await settle(callback)
    assert (audience.asked, pushed) == (2, ["r"])


@pytest.mark.parametrize("trouble", [RedisConnectionError("at secret:6379"), RuntimeError("secret")])
async def test_trouble_is_told_and_harms_nobody(
    callback: SignalRCallback, audience: Audience, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    """What goes wrong is one line of the log, without inside information; the agent hears nothing of it."""
    audience.trouble = trouble
    with caplog.at_level(logging.WARNING):
        await callback.on_streaming_response_update(UPDATE, context())
        await settle(callback)
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_runs_that_never_end_make_room(
    callback: SignalRCallback, pushed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was cancelled says no last word: what is known of it makes room for others."""
    monkeypatch.setattr(module, "MAX_RUNS", 2)
    for run in ("a", "b", "c"):
        await callback.on_streaming_response_update(UPDATE, context(run))
        await settle(callback)
    assert [run for _, run in callback._watches] == ["b", "c"]
    assert pushed == []
