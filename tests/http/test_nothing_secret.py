"""Nothing secret is logged or answered: no key, token, prompt, answer, driver's words or stack trace."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from tests.http.conftest import STANDALONE
from tests.service import (
    Service,
    connect_http,
    eventually,
    free_port,
    open_events,
    read_events,
    running_service,
    stream_path,
)

KEY: Final = "key-that-nobody-may-see"
WRONG_KEY: Final = "wrong-key-that-nobody-may-see"
SECRET: Final = "secret-that-signs-and-that-nobody-may-see"
MODEL_KEY: Final = "sk-model-key-that-nobody-may-see"
PASSWORD: Final = "password-that-nobody-may-see"
PROMPT: Final = "Plan a trip to Kyōto-of-my-secret-wishes"
WITH_KEY: Final = {"x-functions-key": KEY}
RUN: Final = "/api/agents/TravelPlanner/run"
#: What driver, framework and interpreter say when something breaks.
INSIDES: Final = ("Traceback", 'File "', "redis.", "NOAUTH", "WRONGTYPE", "ResponseError", "ConnectionError")


async def use(client: httpx.AsyncClient) -> list[str]:
    """What clients do, right and wrong, with everything secret in it; what of it must not be seen."""
    run = (await client.post(RUN, json={"message": PROMPT}, params={"code": KEY})).json()
    conversation, token = run["conversation_id"], run["stream_token"]
    events = await read_events(client, conversation, {"token": token})
    answer = [event.data for event in events if event.event == "message" and len(event.data) > 12]
    await read_events(client, conversation, {"token": token}, {"last-event-id": events[0].id})
    for params in ({"token": token[:-3]}, {"code": WRONG_KEY}, {"token": token, "cursor": PROMPT}):
        await client.get(stream_path(conversation), params=params)
    await client.get(stream_path("another"), params={"token": token})
    await client.get(f"/api/nowhere/{PROMPT}", params={"token": token})
    await client.post(RUN, content=f'{{"message": "{PROMPT}"', headers={**WITH_KEY, "content-type": "json"})
    await client.delete(run["links"]["status"], headers={"authorization": f"Bearer {token}"})
    return [KEY, WRONG_KEY, SECRET, token, token.rpartition(".")[0], "secret-wishes", *answer]


def shout(service: Service, secret: str) -> None:
    """What the server itself complains of."""
    headers = "host: x\r\nconnection: upgrade\r\nupgrade: websocket"
    upgrade = f"GET /api/health?code={secret} HTTP/1.1\r\n{headers}\r\n\r\n"
    for sent in (f"GET /?code={secret} HTTP/9\r\n\r\n", f"{secret}\r\n\r\n", upgrade):
        _send(service, sent.encode())
    _send(service, f"GET / HTTP/1.1\r\nx: {secret}".encode() + b"x" * 40_000)


def _send(service: Service, sent: bytes) -> None:
    with socket.create_connection(service.address, timeout=5) as connection:
        connection.sendall(sent)
        connection.recv(65_536)


async def test_logs_of_a_service_in_use(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The whole log of a service, at INFO, holds no key, token, prompt or answer, whatever was done to it."""
    settings = {"API_KEYS": KEY, "STREAM_TOKEN_SECRETS": SECRET, "LOG_LEVEL": "INFO"}
    with running_service(tmp_path_factory.mktemp("used") / "data", program=program, **settings) as service:
        async with connect_http(service) as client:
            secrets = await use(client)
        if program == STANDALONE:
            await asyncio.to_thread(shout, service, KEY)
        service.stop()
        log = service.log
    assert "run ended" in log
    assert [secret for secret in secrets if secret in log] == []


async def test_a_failing_agent(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """When a model can't be reached, the log says that a run failed, and no key, address or prompt."""
    address = f"http://127.0.0.1:{free_port()}/path-that-nobody-may-see"
    settings = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": MODEL_KEY, "OPENAI_MODEL": "m"}
    settings |= {"API_KEYS": KEY, "STREAM_TOKEN_SECRETS": SECRET}
    with running_service(tmp_path_factory.mktemp("failing") / "data", program=program, **settings) as service:
        async with connect_http(service) as client:
            body = {"message": PROMPT, "wait_for_response": True}
            response = await client.post(RUN, json=body, headers=WITH_KEY)
        service.stop()
        log = service.log
    assert (response.status_code, response.json()["code"]) == (502, "agent_failed")
    assert "failed" in log
    seen = log + response.text
    hidden = (KEY, SECRET, MODEL_KEY, "nobody-may-see", "secret-wishes", *INSIDES)
    assert [secret for secret in hidden if secret in seen] == []


async def test_answers_while_redis_refuses(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What Redis says when it refuses reaches no client and no log; health tells only that it is away."""
    with running_service(tmp_path_factory.mktemp("refused") / "data", program=program) as service:
        async with connect_http(service) as client, Redis.from_url(service.redis_url) as redis:
            run = (await client.post(RUN, content="Hello")).json()
            await read_events(client, run["conversation_id"])
            await redis.config_set("requirepass", PASSWORD)
            await redis.client_kill_filter(_type="normal", skipme=True)

            async def is_away() -> bool:
                return (await client.get("/api/health")).status_code == 503

            await eventually(is_away, "the service notices")
            answers: list[Any] = [
                await client.get("/api/health"),
                await client.get(run["links"]["stream"]),
                await client.get(run["links"]["status"]),
                await client.post(RUN, content="Hello"),
                await client.delete(run["links"]["status"]),
                await client.get("/api/agents/CallbackAgent/callbacks/told"),
                await client.delete("/api/agents/CallbackAgent/callbacks/told"),
            ]
            async with open_events(
                client, run["conversation_id"], headers={"last-event-id": "0-0"}
            ) as stream:
                assert await stream.rest() == []
        log = service.log
    assert {answer.status_code for answer in answers} == {503}
    seen = "".join(answer.text + str(answer.headers) for answer in answers)
    assert [inside for inside in (PASSWORD, *INSIDES) if inside in seen] == []
    assert [inside for inside in (PASSWORD, "Traceback", "NOAUTH") if inside in log] == []
