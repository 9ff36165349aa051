"""An offline demo model: a chat client for Agent Framework that needs no network, key or money.

It is a fixed program and no language model, but it behaves like one where streaming is concerned: it has
the framework call the tools, thinks, answers word by word at a human pace, and reports usage.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from uuid import uuid4

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatOptions,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FinishReasonLiteral,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
    UsageDetails,
)
from agent_framework.observability import ChatTelemetryLayer

from hosting.demo.itinerary import Findings, compose_itinerary, compose_reasoning
from hosting.demo.request import Trip, understand

MODEL_NAME: Final = "demo"
_FORECAST_TOOL: Final = "get_weather_forecast"
_EVENTS_TOOL: Final = "get_local_events"
#: A word with the white space after it, so that the chunks of a text concatenate to the text.
_WORD: Final = re.compile(r"\s*\S+\s*|\s+")


class DemoChatClient(
    FunctionInvocationLayer[ChatOptions[Any]],
    ChatMiddlewareLayer[ChatOptions[Any]],
    ChatTelemetryLayer[ChatOptions[Any]],
    BaseChatClient[ChatOptions[Any]],
):
    """The offline demo model.

    It plans trips with the tools ``get_weather_forecast`` and ``get_local_events``, builds on the trip of
    an earlier turn, tells jokes, and says of anything else that it is a demo. What it knows of a
    conversation is the messages it is given. It answers in prose: ``response_format`` is ignored.

    Args:
        words_per_second: the pace at which it writes; 0 writes as fast as it can.

    Raises:
        ValueError: ``words_per_second`` is negative or not a finite number.
    """

    OTEL_PROVIDER_NAME: ClassVar[str] = "demo"

    def __init__(self, *, words_per_second: float = 25.0) -> None:
        if not (math.isfinite(words_per_second) and words_per_second >= 0):
            raise ValueError(f"words_per_second is {words_per_second!r}: expected 0 or a number above it.")
        super().__init__()
        self.model = MODEL_NAME
        self._seconds_per_word = 1 / words_per_second if words_per_second else 0.0

    def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],
        **kwargs: Any,  # noqa: ARG002 - the framework's signature
    ) -> Awaitable[ChatResponse] | ResponseStream[ChatResponseUpdate, ChatResponse]:
        # No response_format: the stream's reader would look for JSON in a demo's prose.
        response = self._build_response_stream(self._answer(_Turn.of(messages), _tool_names(options)))
        return response if stream else response.get_final_response()

    async def _answer(self, turn: _Turn, tools: frozenset[str]) -> AsyncIterator[ChatResponseUpdate]:
        update = _Updates()
        request = turn.request
        if isinstance(request, str):
            reasoning, text = "A short answer will do.", request
        elif calls := _calls(request, turn, tools):
            yield update.of(*calls)
            yield update.of(_usage(turn, [call.arguments for call in calls]), finish_reason="tool_calls")
            return
        else:
            reasoning, text = compose_reasoning(request), compose_itinerary(request, turn.findings())
        yield update.of(Content.from_text_reasoning(text=reasoning))
        words = _WORD.findall(text)
        for word in words:
            await self._pause()
            yield update.of(Content.from_text(word))
        yield update.of(_usage(turn, words), finish_reason="stop")

    async def _pause(self) -> None:
        if self._seconds_per_word:
            await asyncio.sleep(self._seconds_per_word)


@dataclass(frozen=True, slots=True)
class _Turn:
    """The latest turn of a conversation, and what the earlier ones make of it."""

    request: Trip | str
    #: This turn's calls that are answered, with their answers; ``None`` for one that failed.
    answered: Sequence[tuple[Content, str | None]]
    words_read: int

    @classmethod
    def of(cls, messages: Sequence[Message]) -> _Turn:
        users = [position for position, message in enumerate(messages) if message.role == "user"]
        since = messages[users[-1] + 1 :] if users else messages
        contents = [content for message in since for content in message.contents]
        calls = {content.call_id: content for content in contents if content.type == "function_call"}
        return cls(
            request=understand([messages[position].text for position in users]),
            answered=[
                (calls[content.call_id], None if content.exception else str(content.result or ""))
                for content in contents
                if content.type == "function_result" and content.call_id in calls
            ],
            words_read=sum(len(message.text.split()) for message in messages),
        )

    def findings(self) -> dict[str, Findings]:
        """The tools' answers, by the destination that they were asked about."""
        answers: dict[tuple[str, str], str | None] = {}
        for call, answer in self.answered:
            destination = (call.parse_arguments() or {}).get("destination")
            answers[str(destination), call.name or ""] = answer
        return {
            destination: Findings(
                forecast=answers.get((destination, _FORECAST_TOOL)),
                events=answers.get((destination, _EVENTS_TOOL)),
            )
            for destination, _ in answers
        }


class _Updates:
    """Makes the updates of one response, which share its ids."""

    def __init__(self) -> None:
        self._response_id = f"demo-{uuid4().hex}"
        self._message_id = f"{self._response_id}-message"
        self._created_at = datetime.now(UTC).isoformat()

    def of(self, *contents: Content, finish_reason: FinishReasonLiteral | None = None) -> ChatResponseUpdate:
        return ChatResponseUpdate(
            contents=contents,
            role="assistant",
            response_id=self._response_id,
            message_id=self._message_id,
            model=MODEL_NAME,
            created_at=self._created_at,
            finish_reason=finish_reason,
        )


def _tool_names(options: Mapping[str, Any]) -> frozenset[str]:
    """The names of the tools that may be called."""
    choice = options.get("tool_choice")
    mode = choice.get("mode") if isinstance(choice, Mapping) else choice
    if mode == "none":
        return frozenset()
    return frozenset(str(getattr(tool, "name", "")) for tool in options.get("tools") or ())


def _calls(trip: Trip, turn: _Turn, tools: frozenset[str]) -> list[Content]:
    """The calls that this turn still needs: none once one is answered, even by an error."""
    if turn.answered:
        return []
    return [
        Content.from_function_call(
            call_id=f"call_{uuid4().hex}",
            name=name,
            arguments=json.dumps({"destination": destination, "date": trip.date}, ensure_ascii=False),
        )
        for destination in trip.destinations
        for name in (_FORECAST_TOOL, _EVENTS_TOOL)
        if name in tools
    ]


def _usage(turn: _Turn, written: Sequence[object]) -> Content:
    """Token counts as a demo has them: a token is a word."""
    return Content.from_usage(
        UsageDetails(
            input_token_count=turn.words_read,
            output_token_count=len(written),
            total_token_count=turn.words_read + len(written),
        )
    )
