"""Each reason to stop a run ends what hangs, whatever the run made of the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate, Content, ResponseStream

from hosting.streamable_agent import StreamableAgent
from streaming.writing.run_control import RunControl, StopReason, current_run

#: Reached only by what hangs.
BOUND = 30.0
SOON = timedelta(milliseconds=50)
NEVER = timedelta(hours=1)


async def hang() -> None:
    await asyncio.Event().wait()


def said(text: str) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_text(text)], role="assistant")


class _Scripted:
    """An agent whose steps do what a test says; ``waits`` is told when a run waits for the first time."""

    id = "scripted"
    name = "Scripted"
    description = None

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    async def swallow(self) -> None:
        """Wait for a cancel, and hide it: up to Python 3.11 ``asyncio.wait_for`` may do so."""
        self.waits.set()
        try:
            await hang()
        except asyncio.CancelledError:
            return


class _SwallowsAtStart(_Scripted):
    async def run(self, *_args: Any, **_options: Any) -> ResponseStream[Any, Any]:
        await self.swallow()

        async def updates() -> AsyncIterator[AgentResponseUpdate]:
            await hang()
            yield said("late")

        return ResponseStream(updates(), finalizer=AgentResponse.from_updates)


class _HangsInItsCleanUp(_Scripted):
    def run(self, *_args: Any, **_options: Any) -> ResponseStream[Any, Any]:
        async def updates() -> AsyncIterator[AgentResponseUpdate]:
            yield said("one ")
            await self.swallow()
            await hang()

        return ResponseStream(updates(), finalizer=AgentResponse.from_updates)


class _FailsWhenCancelled(_Scripted):
    def run(self, *_args: Any, **_options: Any) -> ResponseStream[Any, Any]:
        async def updates() -> AsyncIterator[AgentResponseUpdate]:
            yield said("one ")
            self.waits.set()
            try:
                await hang()
            except asyncio.CancelledError:
                raise ValueError from None

        return ResponseStream(updates(), finalizer=AgentResponse.from_updates)


async def outcome(agent: Any, limit: timedelta, reasons: tuple[StopReason, ...] = ()) -> tuple[str, int]:
    """How a run ends that is stopped for these reasons once it waits; and cancels that are left of it."""
    control = RunControl("c", "r")

    async def execute() -> tuple[str, int]:
        current_run.set(control)
        stream = StreamableAgent(agent, limit).run("hi", stream=True)
        contents = [content async for update in stream for content in update.contents]
        await stream.get_final_response()
        task = asyncio.current_task()
        assert task is not None
        return contents[-1].error_code or contents[-1].text, task.cancelling()

    execution = asyncio.create_task(execute())
    async with asyncio.timeout(BOUND):
        await agent.waits.wait()
        for reason in reasons:
            control.stop(reason)
            # The step takes it before the next comes.
            for _ in range(10):
                await asyncio.sleep(0)
        return await execution


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.TIMED_OUT])
async def test_a_stop_that_one_step_swallows_stops_the_next(reason: StopReason) -> None:
    """A step that hides the cancel is the last: what comes after it is not waited for."""
    code = {StopReason.CANCELLED: "cancelled", StopReason.TIMED_OUT: "run_timeout"}[reason]
    assert await outcome(_SwallowsAtStart(), NEVER, (reason,)) == (code, 0)


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        ((StopReason.CANCELLED, StopReason.TIMED_OUT), "cancelled"),
        ((StopReason.TIMED_OUT, StopReason.CANCELLED), "run_timeout"),
    ],
)
async def test_what_hangs_once_it_was_interrupted_is_interrupted_again(
    reasons: tuple[StopReason, ...], code: str
) -> None:
    """A run whose clean-up hangs is ended by the next reason to stop it; the first says how it ended."""
    assert await outcome(_HangsInItsCleanUp(), NEVER, reasons) == (code, 0)


async def test_the_time_limit_ends_a_cancelled_run_that_hangs() -> None:
    """The limit holds for a run that somebody has cancelled, too."""
    assert await outcome(_HangsInItsCleanUp(), SOON, (StopReason.CANCELLED,)) == ("cancelled", 0)


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.TIMED_OUT])
async def test_an_error_in_place_of_a_cancel_leaves_none(reason: StopReason) -> None:
    """A model's client that turns the cancel into an error fails the run, and its task is as before."""
    assert await outcome(_FailsWhenCancelled(), NEVER, (reason,)) == ("agent_failed", 0)
