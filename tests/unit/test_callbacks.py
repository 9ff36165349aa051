"""Several callbacks on one agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate, Content
from agent_framework_durabletask import AgentCallbackContext, AgentResponseCallbackProtocol

from hosting import callbacks
from hosting.callbacks import Callbacks
from streaming.writing.run_control import RunControl, StopReason, current_run

CONTEXT = AgentCallbackContext("TravelPlanner", "run1", session_id="c1", request_message="Hello")
UPDATE = AgentResponseUpdate(contents=[Content.from_text("Hello")], role="assistant")
FINAL: AgentResponse[Any] = AgentResponse(messages=[])


class Recorder(AgentResponseCallbackProtocol):
    """Notes what it is told, then does something."""

    def __init__(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        self.heard: list[str] = []
        self._then = then

    async def on_streaming_response_update(
        self, update: AgentResponseUpdate, context: AgentCallbackContext
    ) -> None:
        """Take an update."""
        assert context is CONTEXT
        self.heard.append(update.text)
        if self._then is not None:
            await self._then()

    async def on_agent_response(self, response: AgentResponse[Any], context: AgentCallbackContext) -> None:
        """Take the final response."""
        assert (response, context) == (FINAL, CONTEXT)
        self.heard.append("final")
        if self._then is not None:
            await self._then()


async def fail() -> None:
    raise RuntimeError("secret")


async def cancel() -> None:
    raise asyncio.CancelledError


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(callbacks, "OBSERVER_TIMEOUT", timedelta(milliseconds=10))
    yield
    current_run.set(None)


@pytest.mark.parametrize("trouble", [fail, cancel, hang])
async def test_an_observer_that_fails_harms_no_other(
    trouble: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an observer does, the stream and the other observers hear everything."""
    stream, before, after = Recorder(), Recorder(), Recorder()
    told = Callbacks(stream, before, Recorder(trouble), after)
    await told.on_streaming_response_update(UPDATE, CONTEXT)
    await told.on_agent_response(FINAL, CONTEXT)
    assert stream.heard == before.heard == after.heard == ["Hello", "final"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "secret" not in caplog.text


async def test_a_run_that_is_cancelled_while_an_observer_is_waited_for_ends() -> None:
    """A cancel of the run itself is not taken for the observer's failure."""
    entered = asyncio.Event()

    async def block() -> None:
        entered.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.Event().wait()

    told = Callbacks(Recorder(), Recorder(block))
    task = asyncio.create_task(told.on_agent_response(FINAL, CONTEXT))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_observers_hear_nothing_of_an_execution_that_may_not_write() -> None:
    """A run that another execution has taken over is not observed twice."""
    control = RunControl("c1", "run1")
    control.stop(StopReason.SUPERSEDED)
    current_run.set(control)
    stream, observer = Recorder(), Recorder()
    await Callbacks(stream, observer).on_streaming_response_update(UPDATE, CONTEXT)
    assert (stream.heard, observer.heard) == (["Hello"], [])


async def test_what_unwinds_the_run_goes_through() -> None:
    """What the stream's callback raises reaches the framework, and observers are not told of an end."""
    observer = Recorder()
    with pytest.raises(asyncio.CancelledError):
        await Callbacks(Recorder(cancel), observer).on_agent_response(FINAL, CONTEXT)
    assert observer.heard == []
