"""The function app's outermost layer, called as the platform calls it, in both ways to speak HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast, get_type_hints

import azure.durable_functions as df  # type: ignore[import-untyped]  # it has no types of its own
import azure.functions as func
import pytest
from agent_framework import SupportsAgentRun
from agent_framework_durabletask import run_agent_coroutine
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from hosting import functions_app
from hosting.embedded.redis_server import EmbeddedRedis
from hosting.functions_app import ClassicHttp, FunctionsHttp, LiveHttp, StreamingFunctionApp
from hosting.streamable_agent import StreamableAgent
from redis_callback import RedisStreamCallback
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.access_settings import AccessSettings, LimitSettings
from streaming.connections import connect
from streaming.http.endpoints import Endpoints
from streaming.http.limits import Load
from streaming.http.messages import HttpResponse
from streaming.http.task_hub import TaskHub
from streaming.loop_local import LoopLocal
from streaming.settings import Settings
from streaming.sse import ServerSentEventDecoder
from streaming.writing.leases import LeaseKeeper
from tests.functions_platform import (
    AGENT,
    PATIENCE,
    Platform,
    Reader,
    Teller,
    classic_request,
    live_request,
    started,
)

# The durable library's own, at its first entity operation.
pytestmark = pytest.mark.filterwarnings("ignore:azure.functions df_loads was called:DeprecationWarning")

BODY_LIMIT: Final = 1_000
RUN_PATH: Final = {"agent": AGENT}
TEXT: Final = {"content-type": "text/plain"}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("redis")
    server = EmbeddedRedis(folder)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def teller() -> Iterator[Teller]:
    teller = Teller()
    yield teller
    teller.may_go_on.set()


@pytest.fixture
def settings() -> Settings:
    """What the app is set to; a test may have others."""
    return Settings()


@pytest.fixture
async def new_app(
    redis_url: str, teller: Teller, settings: Settings
) -> AsyncIterator[Callable[[FunctionsHttp], StreamingFunctionApp]]:
    """Makes apps around the agent; what they have connected is closed at the end."""

    def connect_here() -> Redis:
        return connect(redis_url)

    handlers = LoopLocal(lambda: RedisStreamResponseHandler(connect_here()))
    leases = LeaseKeeper(connect_here, timedelta(minutes=1))
    load = Load()

    def endpoints(hub: TaskHub) -> Endpoints:
        handler = handlers.get()
        return Endpoints(
            settings=settings,
            agents={AGENT: False},
            runs=handler.runs,
            reader=handler.reader,
            hub=hub,
            leases=leases,
            load=load,
        )

    def new(http: FunctionsHttp) -> StreamingFunctionApp:
        agent = StreamableAgent(cast("SupportsAgentRun", teller))
        callback = RedisStreamCallback(handlers.get, leases)
        return StreamingFunctionApp(
            agents=[agent], callback=callback, endpoints=endpoints, http=http, access=settings.access
        )

    async def close_here() -> None:
        await handlers.get().aclose()

    yield new
    await close_here()
    await asyncio.to_thread(run_agent_coroutine, close_here())
    await asyncio.to_thread(leases.close)


@pytest.fixture
async def classic(
    new_app: Callable[[FunctionsHttp], StreamingFunctionApp], teller: Teller
) -> AsyncIterator[Platform]:
    platform = Platform(new_app(ClassicHttp(BODY_LIMIT)))
    yield platform
    teller.may_go_on.set()
    await platform.client.delivered()


@pytest.fixture
async def live(
    new_app: Callable[[FunctionsHttp], StreamingFunctionApp], teller: Teller
) -> AsyncIterator[Platform]:
    platform = Platform(new_app(LiveHttp(BODY_LIMIT)))
    yield platform
    teller.may_go_on.set()
    await platform.client.delivered()


# ── The classic way ──────────────────────────────────────────────────────────────────────────────────


async def test_classic_health(classic: Platform) -> None:
    """Health looks at Redis and at the task hub, through the invocation's own client."""
    answer = await classic.call("health", classic_request())
    assert answer.status_code == 200
    assert json.loads(answer.get_body()) == {
        "status": "healthy",
        "agents": [{"name": AGENT}],
        "agent_count": 1,
        "redis": "ok",
        "task_hub": "ok",
    }


async def test_hub_away(classic: Platform) -> None:
    """A durable client that fails is a hub that is away: health says so, and a run is refused with 503."""
    classic.client.is_away = True
    health = await classic.call("health", classic_request())
    assert (health.status_code, json.loads(health.get_body())["task_hub"]) == (503, "unavailable")
    run = await classic.call("run", classic_request(RUN_PATH, b"hello", TEXT))
    assert (run.status_code, json.loads(run.get_body())["code"]) == (503, "task_hub_unavailable")


async def test_classic_run_and_wait(classic: Platform, teller: Teller) -> None:
    """A run goes through the agent's entity; who waits gets the answer, and the entity keeps it."""
    teller.may_go_on.set()
    headers = {**TEXT, "x-ms-wait-for-response": "true"}
    answer = await classic.call("run", classic_request(RUN_PATH, b"hello", headers))
    assert (answer.status_code, answer.get_body()) == (200, b"first second")
    conversation_id = answer.headers["x-conversation-id"]
    await classic.client.delivered()
    path = {**RUN_PATH, "conversation_id": conversation_id}
    status = json.loads((await classic.call("status", classic_request(path))).get_body())
    assert (status["status"], status["response"]) == ("Completed", "first second")


async def test_failed_agent(classic: Platform) -> None:
    """An agent that fails is an honest status, never a 200, and its exception is not shown."""
    answer = await classic.call(
        "run", classic_request(RUN_PATH, b"fail", TEXT, {"wait_for_response": "true"})
    )
    assert (answer.status_code, json.loads(answer.get_body())["code"]) == (502, "agent_failed")
    assert b"secret" not in answer.get_body()


async def test_classic_stream_is_complete(classic: Platform, teller: Teller) -> None:
    """Without the extension a stream is answered when the run has ended, with all its events."""
    conversation_id = await started(classic, classic_request(RUN_PATH, b"hello", TEXT))
    teller.may_go_on.set()
    answer = await classic.call("stream", classic_request({"conversation_id": conversation_id}))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = ServerSentEventDecoder().feed(answer.get_body())
    assert [event.data for event in events] == ["first ", "second", "[DONE]"]


async def test_classic_stream_answers_in_time(classic: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that outlasts the platform's patience is answered with what has come, and says so."""
    monkeypatch.setattr(functions_app, "LONGEST_SILENCE", timedelta(seconds=0.5))
    conversation_id = await started(classic, classic_request(RUN_PATH, b"hello", TEXT))
    path, headers = {"conversation_id": conversation_id}, {"accept": "text/plain"}
    answer = await classic.call("stream", classic_request(path, headers=headers))
    text = answer.get_body().decode()
    assert text.startswith("first \n[The connection ended before the answer did")


# ── The live way ─────────────────────────────────────────────────────────────────────────────────────


async def test_live_stream(live: Platform, teller: Teller) -> None:
    """Each chunk is sent when it is produced: the first arrives while the agent makes the second."""
    conversation_id = await started(live, live_request(RUN_PATH, b"hello", TEXT))
    reader = Reader(await live.call("stream", live_request({"conversation_id": conversation_id})))
    assert b"second" not in await reader.until(b"data: first \n\n")
    teller.may_go_on.set()
    await reader.until(b"data: [DONE]\n\n")
    await asyncio.wait_for(reader.sending, PATIENCE)


@pytest.mark.parametrize("takes", [1_000, 3], ids=["while waiting for a piece", "while sending one"])
async def test_a_reader_that_leaves_ends_its_pieces(takes: int) -> None:
    """When the client leaves, what makes its pieces is ended at once, wherever it is."""
    ended = asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(3):
                yield b"piece"
            await asyncio.Event().wait()
        finally:
            ended.set()

    reader = Reader(await LiveHttp(BODY_LIMIT).answer(HttpResponse(200, body=pieces())), takes=takes)
    await reader.until(b"piecepiece")
    await reader.leave()
    assert ended.is_set()


async def test_body_limit(classic: Platform, live: Platform) -> None:
    """A body over the limit is refused alike in both ways, declared or not."""
    body = b"x" * (BODY_LIMIT + 1)
    answers = [
        (await classic.call("run", classic_request(RUN_PATH, body))).get_body(),
        (await live.call("run", live_request(RUN_PATH, body))).body,
        (await live.call("run", live_request(RUN_PATH, headers={"content-length": "1001"}))).body,
    ]
    assert {json.loads(answer)["code"] for answer in answers} == {"request_too_large"}


# ── Tokens and limits ────────────────────────────────────────────────────────────────────────────────

WITH_TOKENS: Final = Settings(access=AccessSettings(token_secrets=("s" * 64,)))


@pytest.mark.parametrize("settings", [WITH_TOKENS])
async def test_tokens_in_both_ways(classic: Platform, live: Platform, teller: Teller) -> None:
    """Where the platform lets everybody through, the app itself asks for the conversation's token."""
    teller.may_go_on.set()
    run = json.loads((await classic.call("run", classic_request(RUN_PATH, b"hello", TEXT))).get_body())
    path, token = {**RUN_PATH, "conversation_id": run["conversation_id"]}, run["stream_token"]
    for name in ("stream", "status", "cancel"):
        refused = [
            (await classic.call(name, classic_request(path))).status_code,
            (await live.call(name, live_request(path))).status_code,
        ]
        assert refused == [401, 401]
    query = {"token": token}
    answer = await classic.call("stream", classic_request(path, query=query))
    assert b"data: second\n" in answer.get_body()
    reader = Reader(await live.call("stream", live_request(path, query=f"token={token}".encode())))
    await reader.until(b"data: [DONE]\n\n")
    await asyncio.wait_for(reader.sending, PATIENCE)
    others = {**path, "conversation_id": "another"}
    forbidden = await live.call("stream", live_request(others, headers={"x-stream-token": token}))
    assert forbidden.status_code == 403


@pytest.mark.parametrize("settings", [Settings(limits=LimitSettings(max_streams=1))])
async def test_places_are_counted_over_requests(live: Platform) -> None:
    """A place is taken for as long as its stream lasts, and one that is never sent takes none for long."""
    conversation_id = await started(live, live_request(RUN_PATH, b"hello", TEXT))
    asked = {"conversation_id": conversation_id}
    reader = Reader(await live.call("stream", live_request(asked)))
    await reader.until(b"data: first \n\n")
    assert (await live.call("stream", live_request(asked))).status_code == 503
    back = await live.call("stream", live_request(asked, headers={"last-event-id": "0-0"}))
    assert (back.status_code, back.body) == (200, b"retry: 5000\n\n")
    await reader.leave()
    for _ in range(3):
        # The platform may lose a client before it sends anything.
        assert (await live.call("stream", live_request(asked))).status_code == 200


# ── Classic handlers in a live app ───────────────────────────────────────────────────────────────────


@pytest.fixture
def mixed_app(new_app: Callable[[FunctionsHttp], StreamingFunctionApp]) -> StreamingFunctionApp:
    """A live app to which someone has added functions of their own."""
    app: Any = new_app(LiveHttp(BODY_LIMIT))

    def echo(req: func.HttpRequest) -> func.HttpResponse:
        said = f"{req.route_params['word']} {req.params['q']} {req.headers['X-Mark']} {req.get_body()!r}"
        answer = func.HttpResponse(said, status_code=201)
        answer.headers.add("set-cookie", "a=1")
        answer.headers.add("set-cookie", "b=2")
        return answer

    async def hub(req: func.HttpRequest, starter: df.DurableOrchestrationClient) -> str:  # noqa: ARG001
        return f"hub {type(starter).__name__}"

    async def native(req: Request) -> Response:  # noqa: ARG001
        return Response("native")

    app.route(route="echo/{word}", methods=["POST"])(echo)
    app.route(route="hub", methods=["GET"])(app.durable_client_input(client_name="starter")(hub))
    app.route(route="native", methods=["GET"])(native)
    return cast("StreamingFunctionApp", app)


async def test_classic_handlers_in_a_live_app(mixed_app: StreamingFunctionApp) -> None:
    """A handler written for classic requests gets one, and its response arrives whole."""
    functions = {each.get_function_name(): each.get_user_function() for each in mixed_app.get_functions()}
    answer = await functions["echo"](req=live_request({"word": "hi"}, b"body", {"x-mark": "m"}, query=b"q=1"))
    assert (answer.status_code, answer.body) == (201, b"hi 1 m b'body'")
    assert answer.headers.getlist("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    bound = json.dumps({"taskHubName": "hub", "creationUrls": {}, "managementUrls": {}})
    assert (
        await functions["hub"](req=live_request(), starter=bound)
    ).body == b"hub DurableOrchestrationClient"
    assert (await functions["native"](req=live_request())).body == b"native"


async def test_every_handler_of_a_live_app_is_indexable(mixed_app: StreamingFunctionApp) -> None:
    """The platform reads a handler's types off its annotations: all HTTP handlers show the live ones."""
    hints = [
        get_type_hints(each.get_user_function())
        for each in mixed_app.get_functions()
        if each.is_http_function()
    ]
    assert {(hint["req"], hint["return"]) for hint in hints} == {(Request, Response)}


async def test_body_limit_of_classic_handlers(mixed_app: StreamingFunctionApp) -> None:
    """The body limit holds for added handlers too."""
    functions = {each.get_function_name(): each.get_user_function() for each in mixed_app.get_functions()}
    answer = await functions["echo"](req=live_request({"word": "hi"}, b"x" * (BODY_LIMIT + 1)))
    assert answer.status_code == 413
