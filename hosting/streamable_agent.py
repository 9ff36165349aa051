"""An agent that tells its stream how it ended, runs once, and stops when asked.

The framework calls no callback when an agent raises, and then runs it a second time without streaming, so
that its tools run twice. This wrapper never raises into the framework: a failure becomes an error content,
which the callback turns into the stream's terminal and the framework into durable state.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from agent_framework import (
    AgentResponse,
    AgentResponseUpdate,
    AgentSession,
    Content,
    Message,
    ResponseStream,
    SupportsAgentRun,
)

from redis_callback import CANCELLED_CODE
from streaming.settings import RUN_TIMEOUT
from streaming.writing.run_control import RunControl, StopReason, current_run

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

FAILED_CODE: Final = "agent_failed"
FAILED_MESSAGE: Final = "The agent failed before it finished its answer."
TIMEOUT_CODE: Final = "run_timeout"
TIMEOUT_MESSAGE: Final = "The run took longer than it may, and was stopped."
#: A model's stream that is broken off closes within this time, or is left to itself.
CLOSE_TIMEOUT: Final = timedelta(seconds=5)
CANCELLED_MESSAGE: Final = "The run was cancelled."


class StreamableAgent:
    """Wraps an agent for durable hosting with a ``RedisStreamCallback``."""

    def __init__(self, agent: SupportsAgentRun, run_timeout: timedelta = RUN_TIMEOUT) -> None:
        """Wrap ``agent``; its name, id and description stay.

        Args:
            agent: The agent.
            run_timeout: A run that takes longer fails with ``run_timeout``, whatever it waits for: nobody
                waits for a model or a tool for ever.
        """
        self._agent = agent
        self._run_timeout = run_timeout
        self.id: str = agent.id
        self.name: str | None = agent.name
        self.description: str | None = agent.description

    def create_session(self, **kwargs: Any) -> AgentSession:
        """Create a session of the wrapped agent."""
        return self._agent.create_session(**kwargs)

    def get_session(self, *args: Any, **kwargs: Any) -> AgentSession:
        """Get a session of the wrapped agent."""
        return self._agent.get_session(*args, **kwargs)

    def run(
        self,
        messages: Any = None,
        *,
        stream: bool = False,
        session: AgentSession | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the agent: a ``ResponseStream`` with ``stream``, else an awaitable ``AgentResponse``."""
        start = partial(self._agent.run, _without_errors(messages), stream=True, session=session, **kwargs)
        execution = _Execution(start, self._run_timeout)
        response = ResponseStream(execution.updates(), finalizer=execution.finish)
        return response if stream else response.get_final_response()


class _Execution:
    """One run of the wrapped agent."""

    def __init__(self, start: Callable[[], Any], timeout: timedelta) -> None:
        self._start_agent = start
        self._timeout = timeout
        self._final: AgentResponse[Any] | None = None
        self._given: list[AgentResponseUpdate] = []

    async def updates(self) -> AsyncIterator[AgentResponseUpdate]:
        # An empty update first: the callback hears which run this is before the model is called, and may
        # find that it has ended already.
        yield AgentResponseUpdate(contents=[], role="assistant")
        control = current_run.get() or RunControl("unknown", "unknown")
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._timeout.total_seconds(), control.stop, StopReason.TIMED_OUT)
        try:
            async for update in self._model_updates(control):
                self._given.append(update)
                yield update
        except _Stopped:
            yield self._failure(CANCELLED_MESSAGE, CANCELLED_CODE)
        except _TimedOut:
            _log.warning("run timed out: %s limit=%s", control, self._timeout)
            yield self._failure(TIMEOUT_MESSAGE, TIMEOUT_CODE)
        except Exception as error:  # noqa: BLE001 - whatever an agent or a model client raises
            control.take_back_cancels()
            _log_failure(error, control)
            yield self._failure(FAILED_MESSAGE, FAILED_CODE)
        finally:
            limit.cancel()

    async def _model_updates(self, control: RunControl) -> AsyncIterator[AgentResponseUpdate]:
        _stop_if_asked(control)
        stream = await _interruptibly(self._start(), control)
        if isinstance(stream, AgentResponse):
            # An agent that can't stream.
            self._final = stream
            for message in stream.messages:
                yield AgentResponseUpdate(contents=message.contents, role=message.role)
            return
        updates = aiter(stream)
        try:
            # A cancel may have been swallowed in the step before.
            _stop_if_asked(control)
            while (update := await _interruptibly(anext(updates, None), control)) is not None:
                yield update
                _stop_if_asked(control)
            self._final = await _interruptibly(stream.get_final_response(), control)
        finally:
            if self._final is None and isinstance(stream, ResponseStream):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                        await stream.close()

    async def _start(self) -> ResponseStream[AgentResponseUpdate, AgentResponse[Any]] | AgentResponse[Any]:
        started: Any = self._start_agent()
        if inspect.isawaitable(started) and not isinstance(started, AsyncIterable):
            started = await started
        result: ResponseStream[AgentResponseUpdate, AgentResponse[Any]] | AgentResponse[Any] = started
        return result

    def _failure(self, message: str, code: str) -> AgentResponseUpdate:
        content = Content.from_error(message=message, error_code=code)
        update = AgentResponseUpdate(contents=[content], role="assistant")
        self._given.append(update)
        self._final = None
        return update

    def finish(self, _updates: Sequence[AgentResponseUpdate]) -> AgentResponse[Any]:
        """The final response: the agent's own, or as much as it gave before it failed."""
        response = AgentResponse.from_updates(self._given) if self._final is None else self._final
        # The durable state logs a stack trace for each response without a time.
        response.created_at = response.created_at or datetime.now(UTC).isoformat()
        return response


class _Stopped(Exception):
    """The run was cancelled: end it, keep what it gave."""


class _TimedOut(Exception):
    """The run took too long: end it, keep what it gave."""


async def _interruptibly(step: Awaitable[_T], control: RunControl) -> _T:
    """Wait for a step of the agent, until it is to stop."""
    try:
        with control.interruptible():
            return await step
    except asyncio.CancelledError:
        _stop_if_asked(control)
        raise


def _stop_if_asked(control: RunControl) -> None:
    reason = control.stop_reason
    if reason is None:
        return
    control.take_back_cancels()
    if reason is StopReason.CANCELLED:
        raise _Stopped
    if reason is StopReason.TIMED_OUT:
        raise _TimedOut
    # Unwinds the framework's entity operation: it keeps nothing of this execution.
    raise asyncio.CancelledError


def _without_errors(messages: Any) -> Any:
    """Past failures are for people; replayed to the model, they would confuse its next turn."""
    if not isinstance(messages, list):
        return messages
    kept: list[Any] = []
    for message in messages:
        if isinstance(message, Message) and any(content.type == "error" for content in message.contents):
            contents = [content for content in message.contents if content.type != "error"]
            if contents:
                kept.append(Message(role=message.role, contents=contents, author_name=message.author_name))
        else:
            kept.append(message)
    return kept


def _log_failure(error: Exception, control: RunControl) -> None:
    # The message may hold a prompt or a key, so only its kind and place are told; DEBUG has all.
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "unknown"
    _log.error("agent failed: %s error=%s at=%s", control, type(error).__name__, where)
    _log.debug("agent failure", exc_info=error)
