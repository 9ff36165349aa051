"""A local endpoint that speaks OpenAI's streaming Chat Completions API, for the vendor's real client.

It first asks for the two travel tools, with each call's arguments in fragments, and writes an answer that
quotes the results once it is sent them.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

DESTINATION: Final = "Kyōto"
DATE: Final = "April"
#: Fragments of the answer before the quoted results: multi-byte, with newlines.
ANSWER: Final = ("# Kyōto ⛩️\n", "\n", "- 🌸 blossoms\n")
TOOLS: Final = ("get_weather_forecast", "get_local_events")


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it came in."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def tool_results(self) -> list[str]:
        """What the tools answered, in the order of the calls."""
        return [message["content"] for message in self.body["messages"] if message["role"] == "tool"]


@dataclass(slots=True)
class OpenAIEndpoint:
    """The running endpoint."""

    #: Without a path.
    url: str
    #: ``status 500``, ``garbage``, ``cut`` in mid-answer, or nothing.
    fault: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)

    async def complete(self, request: Request) -> Response:
        """Answer one request for a completion."""
        received = ReceivedRequest(
            path=request.url.path,
            query=dict(request.query_params),
            headers=dict(request.headers),
            body=await request.json(),
        )
        self.requests.append(received)
        if self.fault == "status 500":
            return Response("the model's own words", status_code=500)
        return StreamingResponse(_failing(_events(received), self.fault), media_type="text/event-stream")


@asynccontextmanager
async def openai_endpoint(*, fault: str = "") -> AsyncIterator[OpenAIEndpoint]:
    """Run the endpoint on a free loopback port while the context lasts; see ``OpenAIEndpoint.fault``."""
    # Listening before the server starts: a client that is faster than the server waits in the backlog.
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = OpenAIEndpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", fault)
    application = Starlette(routes=[Route("/{path:path}", endpoint.complete, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_config=None, ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield endpoint
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def _failing(events: AsyncIterator[str], fault: str) -> AsyncIterator[str]:
    """The events up to a fault in the middle of them."""
    place = 0
    async for event in events:
        place += 1
        if fault == "garbage" and place > 1:
            yield "data: {not: JSON}\n\n"
        elif fault == "cut" and place > 1:
            raise ConnectionAbortedError
        else:
            yield event


async def _events(request: ReceivedRequest) -> AsyncIterator[str]:
    results = request.tool_results
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text} for text in (*ANSWER, *results)] if results else _tool_calls()
    for delta in deltas:
        yield _event([{"index": 0, "delta": delta, "finish_reason": None}])
    yield _event([{"index": 0, "delta": {}, "finish_reason": "stop" if results else "tool_calls"}])
    if request.body.get("stream_options", {}).get("include_usage"):
        yield _event([], usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})
    yield "data: [DONE]\n\n"


def _tool_calls() -> list[dict[str, Any]]:
    """Deltas as the API streams calls: the name first, then the arguments in pieces, call by call."""
    arguments = json.dumps({"destination": DESTINATION, "date": DATE}, ensure_ascii=False)
    deltas: list[dict[str, Any]] = []
    for index, name in enumerate(TOOLS):
        function = {"name": name, "arguments": ""}
        deltas.append({"index": index, "id": f"call_{name}", "type": "function", "function": function})
        deltas += [
            {"index": index, "function": {"arguments": arguments[start : start + 5]}}
            for start in range(0, len(arguments), 5)
        ]
    return [{"tool_calls": [delta]} for delta in deltas]


def _event(choices: list[dict[str, Any]], *, usage: dict[str, int] | None = None) -> str:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "served-model",
        "choices": choices,
        "usage": usage,
    }
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
