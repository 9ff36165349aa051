"""What stands around a function app, for tests: the platform, its durable client, an agent, a client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Final

import azure.durable_functions as df  # type: ignore[import-untyped]  # it has no types of its own
import azure.functions as func
from agent_framework import AgentResponse, AgentResponseUpdate, AgentSession, Content, ResponseStream
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from hosting.functions_app import StreamingFunctionApp

#: Bounds every wait, in seconds. Reached only by what hangs.
PATIENCE: Final = 30.0
AGENT: Final = "Teller"


class Teller:
    """An agent that says two words, the second when it is let; or that fails when told to."""

    id = name = AGENT
    description = None

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def create_session(self, **_options: Any) -> AgentSession:
        """As agents do."""
        return AgentSession()

    def run(self, messages: Any = None, **_options: Any) -> Any:
        """As agents do."""
        fails = "fail" in messages[-1].text
        return ResponseStream(self._updates(fails=fails), finalizer=AgentResponse.from_updates)

    async def _updates(self, *, fails: bool) -> AsyncIterator[AgentResponseUpdate]:
        yield AgentResponseUpdate(contents=[Content.from_text("first ")], role="assistant")
        if fails:
            raise ValueError("a secret")
        await asyncio.to_thread(self.may_go_on.wait, PATIENCE)
        yield AgentResponseUpdate(contents=[Content.from_text("second")], role="assistant")


class FakeDurableClient:
    """Stands for the durable client binding, and for the hub that delivers signals to entities."""

    def __init__(self, functions: dict[str, func.Function]) -> None:
        self._functions = {name.lower(): function for name, function in functions.items()}
        self._states: dict[str, str] = {}
        self._deliveries: list[asyncio.Task[None]] = []
        self.is_away = False

    async def signal_entity(self, entity: df.EntityId, operation: str, content: Any) -> None:
        """Have the entity run the operation, in the background."""
        self._answer()
        self._deliveries.append(asyncio.create_task(self._deliver(entity, operation, content)))

    async def _deliver(self, entity: df.EntityId, operation: str, content: Any) -> None:
        state = self._states.get(str(entity))
        # The client encodes the input once, and so does its HTTP request.
        call = {"name": operation, "input": json.dumps(json.dumps(content)), "isSignal": True}
        context = {
            "self": {"name": entity.name.lower(), "key": entity.key},
            "exists": state is not None,
            "state": state,
            "batch": [call],
        }
        handler = self._functions[entity.name.lower()].get_user_function()
        outcome = json.loads(await asyncio.to_thread(handler, json.dumps(context)))
        self._states[str(entity)] = outcome["entityState"]

    async def read_entity_state(self, entity: df.EntityId) -> Any:
        """What the entity has kept."""
        self._answer()
        state = self._states.get(str(entity))
        return SimpleNamespace(entity_exists=state is not None, entity_state=json.loads(state or "null"))

    def _answer(self) -> None:
        if self.is_away:
            raise Exception("The operation failed with an unexpected status code 500")  # noqa: TRY002

    async def delivered(self) -> None:
        """Wait until the entities have run all operations."""
        await asyncio.gather(*self._deliveries)


class Platform:
    """Calls the app's functions."""

    def __init__(self, app: StreamingFunctionApp) -> None:
        self.functions = {function.get_function_name() or "": function for function in app.get_functions()}
        self.client = FakeDurableClient(self.functions)

    async def call(self, name: str, request: func.HttpRequest | Request) -> Any:
        """What a function of ours answers."""
        handler: Any = self.functions[name].get_user_function()
        # Past the library's own wrapper, which would make a real client.
        async with asyncio.timeout(PATIENCE):
            return await handler.client_function(req=request, client=self.client)


def classic_request(
    path: dict[str, str] | None = None,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
) -> func.HttpRequest:
    """A request as the classic way hands it over."""
    url = "http://localhost/api/"
    return func.HttpRequest("POST", url, headers=headers, params=query, route_params=path, body=body)


def live_request(
    path: dict[str, str] | None = None,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    query: bytes = b"",
) -> Request:
    """A request as the live way hands it over."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "server": ("localhost", 80),
        "path": "/api/",
        "query_string": query,
        "headers": raw,
        "path_params": dict(path or {}),
    }
    return Request(scope, receive)


class Reader:
    """A client of a live response, which takes its pieces one by one and may leave."""

    def __init__(self, response: Response, *, takes: int = 1_000) -> None:
        self._left = asyncio.Event()
        self._room = asyncio.Semaphore(takes)
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.sending = asyncio.create_task(self._run(response))

    async def _run(self, response: Response) -> None:
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await response(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._room.acquire()
        if message["type"] == "http.response.body":
            self.pieces.put_nowait(message["body"])

    async def leave(self) -> None:
        """Go away, and wait until the response has noticed."""
        self._left.set()
        async with asyncio.timeout(PATIENCE):
            await self.sending

    async def until(self, wanted: bytes) -> bytes:
        """What comes, up to and with what is wanted."""
        taken = b""
        async with asyncio.timeout(PATIENCE):
            while wanted not in taken:
                taken += await self.pieces.get()
        return taken


async def started(platform: Platform, request: func.HttpRequest | Request) -> str:
    """Start a run; the conversation's id."""
    answer = await platform.call("run", request)
    assert answer.status_code == 202
    body = answer.get_body() if isinstance(answer, func.HttpResponse) else answer.body
    return str(json.loads(body)["conversation_id"])
