"""One turn of the chat: start a run, show its stream, and do what Ctrl-C says."""

from __future__ import annotations

import asyncio
import enum
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from clients.chat.interrupts import Interrupts
from clients.chat.options import ChatOptions
from clients.chat.screen import Screen
from clients.errors import (
    AccessDenied,
    ClientError,
    InvalidOption,
    OutcomeUnknown,
    RequestRefused,
    Unreachable,
)
from clients.events import Done, EndStatus, Failed
from clients.patience import Reconnect
from clients.runs import Run
from clients.stream_client import StreamClient

#: How long a second Ctrl-C is waited for before the run is stopped: stopped once, it can't be left going on.
SECOND_CHANCE: Final = timedelta(seconds=1)


class ExitStatus(enum.IntEnum):
    """How the program ends, for shells."""

    ANSWERED = 0
    #: The run failed, or somebody else stopped it.
    NOT_ANSWERED = 1
    UNUSABLE = 2
    REFUSED = 3
    AWAY = 4
    #: What was written is not exactly the answer.
    INEXACT = 5
    #: 128 and the number of SIGINT, as shells count.
    INTERRUPTED = 130
    #: 128 and the number of SIGPIPE.
    NOBODY_READS = 141


class Turns:
    """The turns of one conversation."""

    def __init__(self, client: StreamClient, options: ChatOptions, screen: Screen) -> None:
        self._client = client
        self._options = options
        self._screen = screen
        self._was_stopped = False
        self._run: Run | None = None
        #: Whether the person has left a run that goes on.
        self.was_left = False
        #: Of the conversation, once it is known.
        self.conversation_id = options.resume

    async def say(self, message: str) -> ExitStatus:
        """Start a run and show its answer."""
        return await self._with_interrupts(message)

    async def show_latest(self) -> ExitStatus:
        """Show the latest run of the conversation: from its start, and on to its end."""
        return await self._with_interrupts(None)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def tell_reconnect(self, reconnect: Reconnect) -> None:
        """Say why nothing comes; not of the first attempts, which mostly do."""
        if reconnect.attempt > 1:
            delay = reconnect.delay.total_seconds()
            self._screen.note(f"Waiting for the service: {reconnect.reason}. Trying again in {delay:.1f} s.")

    async def _with_interrupts(self, message: str | None) -> ExitStatus:
        self._was_stopped = False
        with Interrupts() as interrupts:
            working = asyncio.create_task(self._work(message))
            obeying = asyncio.create_task(self._obey(interrupts))
            try:
                await asyncio.wait((working, obeying), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (working, obeying):
                    task.cancel()
                await asyncio.wait((working, obeying))
        await asyncio.to_thread(self._screen.close)
        if working.cancelled():
            # Raises what went wrong while it obeyed, if something did.
            for text in await obeying:
                await self._say(text)
            return ExitStatus.INTERRUPTED
        return working.result()

    async def _work(self, message: str | None) -> ExitStatus:
        try:
            self._run = None if message is None else await self._start(message)
            return await self._read(self._run)
        except ClientError as error:
            await asyncio.to_thread(self._screen.failed, error)
            return _status_of(error)

    async def _start(self, message: str) -> Run:
        options = self._options
        run = await self._client.run(options.agent, message, conversation_id=self.conversation_id)
        self.conversation_id = run.conversation_id
        await asyncio.to_thread(self._screen.started, run)
        return run

    async def _read(self, run: Run | None) -> ExitStatus:
        conversation_id = self.conversation_id or ""
        status = ExitStatus.ANSWERED
        events = self._client.stream(conversation_id, all_events=True, run=run.run if run else None)
        async with aclosing(events):
            async for event in events:
                await asyncio.to_thread(self._screen.show, event)
                match event:
                    case Failed():
                        status = ExitStatus.NOT_ANSWERED
                    case Done(status=EndStatus.CANCELLED):
                        stopped = self._was_stopped
                        status = ExitStatus.INTERRUPTED if stopped else ExitStatus.NOT_ANSWERED
                    case Done():
                        status = ExitStatus.ANSWERED
        if status is ExitStatus.ANSWERED and self._screen.is_inexact:
            return ExitStatus.INEXACT
        return status

    async def _obey(self, interrupts: Interrupts) -> list[str]:
        """Stop the run at the first Ctrl-C, leave it at a second; what to say once it is left."""
        await interrupts.next()
        conversation_id = self.conversation_id
        if conversation_id is None:
            return ["Not waiting any longer. The run may have been started."]
        seconds = SECOND_CHANCE.total_seconds()
        await self._say(f"Stopping the run in {seconds:.0f} s. Ctrl-C again leaves it going on.")
        try:
            async with asyncio.timeout(seconds):
                await interrupts.next()
        except TimeoutError:
            return await self._stop(interrupts, conversation_id)
        self.was_left = True
        return ["Left. The run goes on; come back to it:", self._options.command_to_resume(conversation_id)]

    async def _stop(self, interrupts: Interrupts, conversation_id: str) -> list[str]:
        self._was_stopped = True
        try:
            run = self._run.run if self._run else None
            await self._client.cancel(self._options.agent, conversation_id, run=run)
        except ClientError as error:
            await asyncio.to_thread(self._screen.failed, error)
            told = "The run could not be stopped; see what becomes of it:"
        else:
            # Its stream says that it has ended; whoever can't wait for that presses once more.
            await interrupts.next()
            told = "Left while the run was being stopped; see what became of it:"
        self.was_left = True
        return [told, self._options.command_to_resume(conversation_id)]

    async def _say(self, text: str) -> None:
        await asyncio.to_thread(self._screen.note, text)


def _status_of(error: ClientError) -> ExitStatus:
    match error:
        case AccessDenied():
            return ExitStatus.REFUSED
        case RequestRefused() | InvalidOption():
            return ExitStatus.UNUSABLE
        case Unreachable() | OutcomeUnknown():
            return ExitStatus.AWAY
    return ExitStatus.NOT_ANSWERED
