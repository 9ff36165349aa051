"""Several callbacks on one agent: the stream's first, then those that observe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Final

from agent_framework import AgentResponse, AgentResponseUpdate
from agent_framework_durabletask import AgentCallbackContext, AgentResponseCallbackProtocol

from streaming.cancellation import raise_if_cancelled
from streaming.writing.run_control import StopReason, current_run

_log = logging.getLogger(__name__)

#: How long an observer may hold up the agent with one call. What it has to send it is to collect and send in
#: batches of its own; one that hangs must not hang the run.
OBSERVER_TIMEOUT: Final = timedelta(seconds=2)


class Callbacks(AgentResponseCallbackProtocol):
    """Tells the stream's callback and then observers of an agent's updates; none can harm another.

    Observers hear what the stream was given, in the same order. They hear nothing of an execution that may
    not write (another has taken the run over, or it has ended before).
    """

    def __init__(
        self, stream: AgentResponseCallbackProtocol, *observers: AgentResponseCallbackProtocol
    ) -> None:
        """Tell ``stream`` first. What it raises to unwind the run goes through."""
        self._stream = stream
        self._observers = observers

    async def on_streaming_response_update(
        self, update: AgentResponseUpdate, context: AgentCallbackContext
    ) -> None:
        """Pass an update on."""
        await self._stream.on_streaming_response_update(update, context)
        control = current_run.get()
        if control is not None and control.stop_reason is StopReason.SUPERSEDED:
            return
        for observer in self._observers:
            await _guarded(observer, observer.on_streaming_response_update(update, context))

    async def on_agent_response(self, response: AgentResponse[Any], context: AgentCallbackContext) -> None:
        """Pass the final response on."""
        await self._stream.on_agent_response(response, context)
        for observer in self._observers:
            await _guarded(observer, observer.on_agent_response(response, context))


async def _guarded(observer: AgentResponseCallbackProtocol, call: Awaitable[None]) -> None:
    """Wait for an observer, for a while; its failure is its own."""
    name = type(observer).__name__
    try:
        async with asyncio.timeout(OBSERVER_TIMEOUT.total_seconds()):
            await call
    except asyncio.CancelledError:
        # Its own, or the run's?
        raise_if_cancelled()
        _log.warning("callback failed, the run goes on: callback=%s error=CancelledError", name)
    except Exception as error:  # noqa: BLE001 - whatever an observer raises
        _log.warning("callback failed, the run goes on: callback=%s error=%s", name, type(error).__name__)
