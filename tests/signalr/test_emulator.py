"""The emulator does what applications and clients count on of the service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from bridges.signalr.errors import PushRefused, PushUnavailable, UnknownConnection
from bridges.signalr.service_client import SignalRServiceClient
from bridges.signalr.settings import parse_connection_string
from signalr_emulator import clients, hub
from signalr_emulator.hub_protocol import SEPARATOR
from signalr_emulator.server import SignalREmulator, kept_access_key
from tests.service import PATIENCE, ROOT, free_port
from tests.signalr.helpers import ACCESS_KEY, HubClient, emulator, random_key

TTL = timedelta(minutes=1)
HUB = "travel"


@pytest.fixture
async def running() -> AsyncIterator[SignalREmulator]:
    async with emulator() as started:
        yield started


@pytest.fixture
async def service(running: SignalREmulator) -> AsyncIterator[SignalRServiceClient]:
    async with SignalRServiceClient(parse_connection_string(running.connection_string), HUB) as client:
        yield client


@pytest.fixture
async def http(running: SignalREmulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.endpoint, trust_env=False, timeout=PATIENCE) as client:
        yield client


async def client_of(service: SignalRServiceClient, user: str) -> HubClient:
    return HubClient(service.client_url, await service.client_token(user, TTL))


def signed(audience: str, *, key: str = ACCESS_KEY, life: int = 60, algorithm: str = "HS256") -> str:
    claims = {"aud": audience, "exp": int(time.time()) + life}
    return jwt.encode(claims, key if algorithm != "none" else "", algorithm=algorithm)


async def test_groups_users_and_everybody(service: SignalRServiceClient) -> None:
    """A call reaches the connections of a group, of a user, or all of the hub, and no others."""
    async with await client_of(service, "alice") as alice, await client_of(service, "bob") as bob:
        await service.add_user_to_group("g", "alice", TTL)
        await service.add_connection_to_group("g2", bob.connection_id)
        for number, to in enumerate([{"group": "g"}, {"group": "g2"}, {"user_id": "bob"}, {}]):
            await service.send(target="t", arguments=[{"n": number}], **to)
        assert [(await alice.call())[1]["n"] for _ in range(2)] == [0, 3]
        assert [(await bob.call())[1]["n"] for _ in range(3)] == [1, 2, 3]
        await service.remove_user_from_group("g", "alice")
        await service.remove_connection_from_group("g2", bob.connection_id)
        await service.send(target="t", arguments=[{"n": 4}], group="g")
        await service.send(target="t", arguments=[{"n": 5}], group="g2")
        await service.send(target="t", arguments=[{"n": 6}])
        assert (await alice.call())[1]["n"] == (await bob.call())[1]["n"] == 6
        with pytest.raises(UnknownConnection):
            await service.add_connection_to_group("g", "nobody")


async def test_a_user_keeps_its_groups_and_a_connection_does_not(service: SignalRServiceClient) -> None:
    """Who connects anew has another connection id, the groups of its user, and none of its old connection."""
    async with await client_of(service, "alice") as before:
        await service.add_user_to_group("of-user", "alice", TTL)
        await service.add_connection_to_group("of-connection", before.connection_id)
    async with await client_of(service, "alice") as after:
        assert after.connection_id != before.connection_id
        await service.send(target="t", arguments=[{"n": 1}], group="of-connection")
        await service.send(target="t", arguments=[{"n": 2}], group="of-user")
        assert (await after.call())[1]["n"] == 2


@pytest.mark.parametrize(
    "case", ["none", "nonsense", "signature", "audience", "hub", "expired", "unsigned", "no expiry"]
)
async def test_tokens_that_are_refused(running: SignalREmulator, http: httpx.AsyncClient, case: str) -> None:
    """Neither an application nor a client gets in without a token of the service's key for just that."""

    def token(right: str, wrong: str) -> str:
        return {
            "none": "",
            "nonsense": "nonsense",
            "signature": signed(f"{running.endpoint}{right}", key=random_key()),
            "audience": signed(f"https://elsewhere.example{right}"),
            "hub": signed(f"{running.endpoint}{wrong}"),
            "expired": signed(f"{running.endpoint}{right}", life=-1),
            "unsigned": signed(f"{running.endpoint}{right}", algorithm="none"),
            "no expiry": jwt.encode({"aud": f"{running.endpoint}{right}"}, ACCESS_KEY, "HS256"),
        }[case]

    send = f"/api/hubs/{HUB}/:send"
    body = {"target": "t", "arguments": []}
    bearer = {"authorization": f"Bearer {token(send, '/api/hubs/other/:send')}".strip()}
    assert (await http.post(send, json=body, headers=bearer)).status_code == 401
    given = token(f"/client/?hub={HUB}", "/client/?hub=other")
    negotiate = await http.post(
        f"/client/negotiate?hub={HUB}", headers={"authorization": f"Bearer {given}".strip()}
    )
    assert negotiate.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws{running.endpoint.removeprefix('http')}/client/?hub={HUB}&access_token={given}")
    assert refused.value.response.status_code == 401


async def test_the_published_client_is_understood(
    running: SignalREmulator, http: httpx.AsyncClient, service: SignalRServiceClient
) -> None:
    """The requests of the published sample's own client, of the interface's first version, do the same."""
    async with await client_of(service, "alice") as alice:
        paths = [
            ("PUT", f"/api/v1/hubs/{HUB}/groups/g/connections/{alice.connection_id}", 200),
            ("POST", f"/api/v1/hubs/{HUB}/groups/g", 202),
            ("PUT", f"/api/v1/hubs/{HUB}/groups/g2/users/alice", 202),
            ("POST", f"/api/v1/hubs/{HUB}/groups/g2", 202),
            ("POST", f"/api/v1/hubs/{HUB}/users/alice", 202),
            ("POST", f"/api/v1/hubs/{HUB}", 202),
        ]
        for method, path, status in paths:
            body = {"target": "agentMessage", "arguments": [{"path": path}]} if method == "POST" else None
            headers = {"authorization": f"Bearer {signed(running.endpoint + path)}"}
            assert (await http.request(method, path, json=body, headers=headers)).status_code == status
        heard = [(await alice.call())[1]["path"] for _ in range(4)]
    assert heard == [path for method, path, _ in paths if method == "POST"]


async def test_what_is_no_message(running: SignalREmulator, http: httpx.AsyncClient) -> None:
    """What is no call, or too large, is refused, and harms nobody."""
    send = f"/api/hubs/{HUB}/:send"
    headers = {"authorization": f"Bearer {signed(running.endpoint + send)}"}
    for body in (b"", b"[]", b'{"target": 1, "arguments": []}', b'{"target": "t"}', b"[" * 100_000):
        assert (await http.post(send, content=body, headers=headers)).status_code == 400
    large = b'{"target": "t", "arguments": ["' + b"x" * 1_100_000 + b'"]}'
    assert (await http.post(send, content=large, headers=headers)).status_code == 413


@pytest.mark.parametrize(
    "first",
    ['{"protocol":"messagepack","version":1}', '{"protocol":"json","version":9}', "[]", "nonsense"],
)
async def test_a_handshake_that_can_not_be(service: SignalRServiceClient, first: str) -> None:
    """A client that asks for what is not spoken here is told so, and let go."""
    url = f"ws{service.client_url.removeprefix('http')}"
    token = await service.client_token("alice", TTL)
    async with connect(f"{url}&access_token={token}") as socket:
        await socket.send(first + SEPARATOR)
        async with asyncio.timeout(PATIENCE):
            answer = json.loads(str(await socket.recv()).rstrip(SEPARATOR))
            await socket.wait_closed()
    assert answer["error"]


async def test_a_silent_connection_is_kept_alive(
    service: SignalRServiceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client hears a ping when there is nothing else, and is let go when it says nothing for long."""
    monkeypatch.setattr(clients, "PING_INTERVAL", timedelta(milliseconds=20))
    monkeypatch.setattr(clients, "SILENCE_LIMIT", timedelta(milliseconds=300))
    async with await client_of(service, "alice") as alice:
        assert await alice.message() == {"type": 6}
        await alice.send('{"type":6}' + SEPARATOR)
        assert alice._socket is not None
        async with asyncio.timeout(PATIENCE):
            await alice._socket.wait_closed()


async def test_a_client_that_calls_the_hub(service: SignalRServiceClient) -> None:
    """Nobody answers calls of a serverless hub: a client that makes one is told, and not to come back."""
    async with await client_of(service, "alice") as alice:
        await alice.send('{"type":1,"target":"x","arguments":[],"invocationId":"1"}' + SEPARATOR)
        closed = await alice.message()
    assert (closed["type"], closed["allowReconnect"]) == (7, False)


async def test_a_client_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for one client is bounded: past that it is told to come back, and gets nothing more."""
    monkeypatch.setattr(hub, "MAX_WAITING", 10)
    connection = hub.Connection("c", "u")
    connection.put("12345")
    connection.put("123456")
    connection.put("late")
    messages = [await connection.next(), await connection.next()]
    assert messages[0] is not None
    assert json.loads(messages[0].rstrip(SEPARATOR))["allowReconnect"] is True
    assert messages[1] is None


async def test_stopping_tells_clients_to_come_back() -> None:
    """When the emulator stops, its clients are told that they may connect again."""
    async with emulator() as running:
        client = SignalRServiceClient(parse_connection_string(running.connection_string), HUB)
        async with client, await client_of(client, "alice") as alice:
            await running.__aexit__(None, None, None)
            closed = await alice.message()
    assert (closed["type"], closed["allowReconnect"]) == (7, True)


async def test_pages_of_any_origin(running: SignalREmulator) -> None:
    """A browser may ask from any page, with credentials and the vendor's headers: its origin is named."""
    async with httpx.AsyncClient(base_url=running.endpoint, trust_env=False) as http:
        response = await http.options(
            "/client/negotiate",
            headers={
                "origin": "http://127.0.0.1:7071",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,x-requested-with,x-signalr-user-agent",
            },
        )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "http://127.0.0.1:7071"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "x-signalr-user-agent" in response.headers["access-control-allow-headers"]


async def test_a_service_that_is_away() -> None:
    """A client of the service tries a few times, then says that it is away; what is refused is refused."""
    nowhere = f"Endpoint=http://127.0.0.1;Port={free_port()};AccessKey={ACCESS_KEY};"
    async with SignalRServiceClient(parse_connection_string(nowhere), HUB) as client:
        with pytest.raises(PushUnavailable):
            await client.send(target="t", arguments=[])
    async with emulator(key=random_key()) as running:
        wrong = f"Endpoint={running.endpoint};AccessKey={ACCESS_KEY};"
        async with SignalRServiceClient(parse_connection_string(wrong), HUB) as client:
            with pytest.raises(PushRefused):
                await client.send(target="t", arguments=[])


class _Credential:
    """Signs in as Entra ID would; what it gives is what the emulator takes for one request."""

    def __init__(self, audience: str) -> None:
        self._audience = audience
        self.scopes: list[str] = []

    async def get_token(self, *scopes: str) -> Any:
        self.scopes += scopes
        return type("Token", (), {"token": signed(self._audience)})()

    async def close(self) -> None:
        """Nothing is open."""


async def test_signing_in_with_entra_id(running: SignalREmulator) -> None:
    """Without a key, Entra ID's token goes with each request, and the service makes clients' tokens."""
    address = parse_connection_string(f"Endpoint={running.endpoint};AuthType=azure.msi;")
    credential = _Credential(f"{running.endpoint}/api/hubs/{HUB}/:generateToken")
    async with SignalRServiceClient(address, HUB, credential=credential) as client:
        token = await client.client_token("alice", TTL)
        async with HubClient(client.client_url, token):
            assert [each.user for each in running._hubs.all()] == ["alice"]
    assert credential.scopes == ["https://signalr.azure.com/.default"]


def test_the_key_is_kept(tmp_path: Path) -> None:
    """The access key survives a restart, and nobody else can read it."""
    path = tmp_path / "folder" / "key"
    key = kept_access_key(path)
    assert kept_access_key(path) == key
    assert len(key) == 64
    assert path.stat().st_mode & 0o077 == 0


def test_by_itself(tmp_path: Path) -> None:
    """``python -m signalr_emulator`` says its connection string, on loopback, and stops when interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "signalr_emulator", "--port", "0", "--key-file", str(tmp_path / "key")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        name, _, value = line.partition("=")
        assert name == "AZURE_SIGNALR_CONNECTION_STRING"
        address = parse_connection_string(value.strip().strip("'"))
        assert httpx.get(f"{address.endpoint}/api/health", trust_env=False).status_code == 200
        assert address.endpoint.startswith("http://127.0.0.1:")
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
