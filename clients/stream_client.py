"""The client: starts runs, reads their streams without losing its place, asks where they stand, stops them.

It knows HTTP and the event format, and no Redis.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx

from clients.answers import Answer, AnswerText
from clients.errors import AnswerIncomplete, RunFailed, UnexpectedAnswer
from clients.events import Done, EndStatus, StreamEvent
from clients.link import Link, OnReconnect, path_part
from clients.patience import Patience
from clients.reading import StreamReading, StreamRequest
from clients.runs import Run, RunReport, read_report


class StreamClient:
    """A client of one service, for any number of conversations at once. Belongs to one event loop.

    ::

        async with StreamClient("http://127.0.0.1:7071") as client:
            run = await client.run("TravelPlanner", "Plan a 3-day trip to Tokyo")
            async for event in client.stream(run.conversation_id):
                ...
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        stream_token: str | None = None,
        patience: Patience | None = None,
        on_reconnect: OnReconnect | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            base_url: The service's address, such as ``http://127.0.0.1:7071``.
            api_key: Sent as a header with every request.
            stream_token: Sent as a header, but where the service gave one for the conversation: those that
                come with a started run are used by themselves.
            patience: Pauses and limits in time.
            on_reconnect: Is told before the client waits and comes back.
            transport: For proxies, or certificates of your own; ``None``: as the environment says.

        Raises:
            InvalidOption: one of them can't be used.
        """
        self._link = Link(
            base_url,
            api_key=api_key,
            stream_token=stream_token,
            patience=patience or Patience(),
            transport=transport,
            on_reconnect=on_reconnect,
        )

    def __repr__(self) -> str:
        return f"StreamClient({self._link.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Runs go on."""
        await self._link.http.aclose()

    async def run(
        self, agent: str, message: str, *, conversation_id: str | None = None, wait: bool = False
    ) -> Run:
        """Start a run, in a new conversation or a known one.

        Args:
            agent: Its name.
            message: What to say to it.
            conversation_id: Of an earlier turn; ``None``: a new conversation.
            wait: Whether to read its stream to the end first: then it has ``answer``. A connection that is
                cut meanwhile costs nothing.

        Raises:
            RequestRefused: the service refuses the request.
            Unreachable: the service is away for longer than the patience lasts.
            OutcomeUnknown: the connection broke after the request was sent. It is not sent again.
            RunFailed, AnswerIncomplete: as ``answer`` raises them; with ``wait`` only.
        """
        path = f"/api/agents/{path_part('agent', agent)}/run"
        content: dict[str, Any] = {"message": message, "wait_for_response": False}
        if conversation_id is not None:
            content["conversation_id"] = conversation_id
        told = await self._link.ask(
            "POST", path, conversation_id=conversation_id, content=content, is_repeatable=False
        )
        report = read_report(agent, told)
        if report is None:
            raise _not_understood(path)
        self._link.remember(report.conversation_id, report.run, told.get("stream_token"))
        run = Run(agent, report.conversation_id, report.run)
        if not wait:
            return run
        return replace(run, answer=await self.answer(run.conversation_id, run=run.run))

    def stream(
        self,
        conversation_id: str,
        *,
        cursor: str | None = None,
        follow: bool = False,
        all_events: bool = False,
        run: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Read a conversation's stream: each event once, in order, over any number of connections.

        Who leaves the loop before its end closes the connection by ``contextlib.aclosing``.

        Args:
            conversation_id: Whose.
            cursor: Where to go on: an event's ``cursor``; ``None``: the latest run from its start; ``"0"``:
                all that is retained; ``"$"``: only what is new.
            follow: Whether to go on through later runs, until you leave.
            all_events: Whether to be given tool calls, their results, reasoning and token counts too.
            run: Of this run only.

        Raises:
            RunFailed: the run failed; ``RunInterrupted``, ``StreamLost``: it lost its process, its stream.
                With ``follow`` only the last; the others are ``Failed`` events.
            RequestRefused: the service refuses the request; see its subclasses.
            Unreachable: nothing came for longer than the patience lasts.
        """
        wanted = StreamRequest(conversation_id, cursor, follow, all_events, run)
        return StreamReading(self._link, wanted).events()

    async def answer(self, conversation_id: str, *, run: str | None = None) -> Answer:
        """Read a run to its end: its final text, right over cuts and resets, and how it ended.

        Args:
            conversation_id: Whose.
            run: Which; ``None``: the latest.

        Raises:
            RunFailed: the run failed; ``text`` is what it had said.
            AnswerIncomplete: a part is no longer retained; ``text`` is what there is.
            RequestRefused, Unreachable: as ``stream`` raises them.
        """
        collected = AnswerText()
        status: EndStatus | None = None
        cursor = None
        try:
            async for event in self.stream(conversation_id, run=run):
                collected.take(event)
                cursor = event.cursor
                if isinstance(event, Done):
                    status = event.status
        except RunFailed as error:
            error.text = collected.text
            raise
        if status is None or collected.has_gap:
            raise AnswerIncomplete(collected.text, cursor=cursor)
        return Answer(collected.text, status, cursor)

    async def text(self, conversation_id: str, *, run: str | None = None) -> str:
        """The text of ``answer``; of a cancelled run, what it had said until then.

        Raises:
            The same as ``answer``.
        """
        return (await self.answer(conversation_id, run=run)).text

    async def status(self, agent: str, conversation_id: str, *, run: str | None = None) -> RunReport:
        """Where a run stands; without ``run`` the conversation's latest.

        Raises:
            RequestRefused, Unreachable: as ``run`` raises them.
        """
        return await self._about("GET", agent, conversation_id, run)

    async def cancel(self, agent: str, conversation_id: str, *, run: str | None = None) -> RunReport:
        """Stop a run; without ``run`` the conversation's latest. One that has ended stays as it is.

        Its readers get ``Done`` with ``EndStatus.CANCELLED`` soon.

        Raises:
            RequestRefused, Unreachable: as ``run`` raises them.
        """
        return await self._about("DELETE", agent, conversation_id, run)

    async def _about(self, method: str, agent: str, conversation_id: str, run: str | None) -> RunReport:
        conversation = path_part("conversation_id", conversation_id)
        path = f"/api/agents/{path_part('agent', agent)}/run/{conversation}"
        params = {} if run is None else {"run": run}
        told = await self._link.ask(method, path, conversation_id=conversation_id, params=params)
        report = read_report(agent, told)
        if report is None:
            raise _not_understood(path)
        return report


def _not_understood(path: str) -> UnexpectedAnswer:
    message = f"What answered {path} does not speak this protocol: is base_url the streaming service?"
    return UnexpectedAnswer(message, code="unexpected_answer", http_status=200)
