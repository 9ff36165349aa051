"""Starts a pusher for each run that somebody wants pushed. An observer: it holds no agent up."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from agent_framework import AgentResponse, AgentResponseUpdate
from agent_framework_durabletask import AgentCallbackContext, AgentResponseCallbackProtocol
from redis.exceptions import RedisError

from bridges.signalr.audience import Audience
from bridges.signalr.pusher import RunPusher
from bridges.signalr.service_client import SignalRServiceClient
from streaming.cancellation import cancel_and_wait
from streaming.reading.reader import StreamReader

_log = logging.getLogger(__name__)

#: How often, while its agent goes on, it is looked whether somebody has joined a run's conversation by now.
LOOK_AGAIN: Final = timedelta(seconds=1)
#: How long stopping may take.
STOP_TIMEOUT: Final = timedelta(seconds=2)
#: Runs that are watched at a time, far more than one process executes. Others are not pushed.
MAX_RUNS: Final = 4_096


@dataclass(slots=True)
class _Watch:
    """What is known of a run's clients."""

    task: asyncio.Task[None] | None = None
    looked_at: float = 0.0
    is_pushed: bool = False


class SignalRCallback(AgentResponseCallbackProtocol):
    """Has runs pushed to the clients that have joined their conversations.

    Give it to ``hosting.callbacks.Callbacks`` as an observer, behind the callback that writes the stream. An
    update is only the sign that there is a run: what is pushed is read from the stream. So pushes carry the
    entry ids and sequences that readers of the stream know; they tell of what no update tells, such as a
    reset or a lost run; and nobody is told of what is not stored. It costs one reader of the stream for each
    run that somebody has joined, and nothing for others.
    """

    def __init__(
        self,
        reader: Callable[[], StreamReader],
        client: Callable[[], SignalRServiceClient],
        audience: Callable[[], Audience],
    ) -> None:
        """Each is asked for on the agents' event loop, for that loop's own."""
        self._reader = reader
        self._client = client
        self._audience = audience
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: The agents' loop, once they have said something.
        self._loop: asyncio.AbstractEventLoop | None = None

    async def on_streaming_response_update(
        self,
        update: AgentResponseUpdate,  # noqa: ARG002 - what it holds is in the stream
        context: AgentCallbackContext,
    ) -> None:
        """Look whether the run has to be pushed."""
        self._look(context)

    async def on_agent_response(
        self,
        response: AgentResponse[Any],  # noqa: ARG002 - as above
        context: AgentCallbackContext,
    ) -> None:
        """The run has ended: who has joined by now gets all of it."""
        self._look(context, has_ended=True)
        self._watches.pop(_run_of(context), None)

    async def aclose(self) -> None:
        """Stop pushing, from any loop."""
        if self._loop is None or self._loop.is_closed():
            return
        stopped = asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        # The agents' loop may be held up by a tool, or gone.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(stopped), STOP_TIMEOUT.total_seconds())

    async def _stop(self) -> None:
        await cancel_and_wait(self._tasks)
        await self._reader().close()
        await self._client().aclose()

    def _look(self, context: AgentCallbackContext, *, has_ended: bool = False) -> None:
        key = _run_of(context)
        watch = self._watches.get(key)
        if watch is None:
            if not self._has_room():
                return
            watch = self._watches[key] = _Watch()
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        is_due = watch.looked_at == 0 or has_ended or now - watch.looked_at >= LOOK_AGAIN.total_seconds()
        if watch.is_pushed or not is_due or (watch.task is not None and not watch.task.done()):
            return
        watch.looked_at = now
        # In a context of its own: what runs here is not the agent's run.
        task = asyncio.create_task(
            self._push(watch, *key), name="signalr-push", context=contextvars.Context()
        )
        watch.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push(self, watch: _Watch, conversation_id: str, run: str) -> None:
        try:
            if not await self._audience().is_joined(conversation_id):
                return
            watch.is_pushed = True
            await RunPusher(self._reader(), self._client()).push(conversation_id, run)
        except RedisError as error:
            _log.warning("push not begun: conversation=%s error=%s", conversation_id, type(error).__name__)
        except Exception as error:  # noqa: BLE001 - nobody waits for this task: without it nobody would hear of it
            _log.error("push broke off: conversation=%s error=%s", conversation_id, type(error).__name__)

    def _has_room(self) -> bool:
        """Whether one more run can be watched. Those that ended without a word make room."""
        if len(self._watches) >= MAX_RUNS:
            silent = (key for key, watch in self._watches.items() if watch.task is None or watch.task.done())
            oldest = next(silent, None)
            if oldest is None:
                _log.warning("run not pushed: %d are being pushed", MAX_RUNS)
                return False
            del self._watches[oldest]
        return True


def _run_of(context: AgentCallbackContext) -> tuple[str, str]:
    return context.session_id or "", context.correlation_id
