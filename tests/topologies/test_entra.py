"""Signing in with Microsoft Entra ID, against a stand-in of the managed identity endpoint on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from redis import Redis

from tests.redis_server import RedisServer
from tests.service import Service, connect_http, finished_run, read_events, running_service, text_of
from tests.topologies.servers import Cluster, ask

#: The identity, as its Redis user is called.
OBJECT_ID: Final = "11111111-2222-3333-4444-555555555555"
CLIENT_ID: Final = "66666666-7777-8888-9999-000000000000"
HEADER: Final = "identity-header"
#: Seconds; so short that each sign-in asks for a new one.
TOKEN_LIFE: Final = 120


@dataclass(slots=True)
class IdentityEndpoint:
    """Gives tokens, as App Service and Functions do to what runs in them."""

    #: Whose user has the tokens as passwords.
    ports: list[int]
    url: str = ""
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def issue(self) -> str:
        """A new token, which Redis knows from now on."""
        now = int(time.time())
        claims = {"oid": OBJECT_ID, "iat": now, "exp": now + TOKEN_LIFE, "jti": str(len(self.tokens))}
        token = jwt.encode(claims, "a secret that nobody checks, 32 bytes", algorithm="HS256")
        self.tokens.append(token)
        for port in self.ports:
            with Redis(port=port) as redis:
                redis.execute_command("ACL", "SETUSER", OBJECT_ID, "on", f">{token}", "~*", "&*", "+@all")
        return token


@contextmanager
def identity_endpoint(*ports: int) -> Iterator[IdentityEndpoint]:
    """The endpoint while inside."""
    endpoint = IdentityEndpoint(list(ports))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["X-IDENTITY-HEADER"] == HEADER
            with lock:
                endpoint.queries.append(parse_qs(urlsplit(self.path).query))
                token = endpoint.issue()
            body = dumps(
                {
                    "access_token": token,
                    "expires_on": str(int(time.time()) + TOKEN_LIFE),
                    "resource": "https://redis.azure.com",
                    "token_type": "Bearer",
                }
            ).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/msi/token"
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@contextmanager
def signed_in_service(data_dir: Path, url: str, endpoint: IdentityEndpoint) -> Iterator[Service]:
    """A service that has no secret, only an identity."""
    settings = {
        "REDIS_CONNECTION_STRING": f"{url}?auth=entra&client_id={CLIENT_ID}",
        "IDENTITY_ENDPOINT": endpoint.url,
        "IDENTITY_HEADER": HEADER,
    }
    with running_service(data_dir, **settings) as service:
        yield service


async def run_and_read(service: Service) -> None:
    """A run and its stream."""
    async with connect_http(service) as http:
        run = await finished_run(http)
        assert text_of(await read_events(http, str(run["conversation_id"]))) == run["response"] != ""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """One server."""
    started = RedisServer(tmp_path / "server")
    await started.start()
    yield started
    started.kill()


async def test_a_service_signs_in_with_entra_id(server: RedisServer, tmp_path: Path) -> None:
    """With auth=entra the identity is the user and its token the password; an expired one is replaced."""
    with (
        identity_endpoint(server.port) as endpoint,
        signed_in_service(tmp_path / "data", server.url, endpoint) as service,
    ):
        await run_and_read(service)
        assert endpoint.queries[0]["resource"] == ["https://redis.azure.com"]
        assert endpoint.queries[0]["client_id"] == [CLIENT_ID]
        issued = len(endpoint.tokens)
        # What Redis does to a connection whose token has expired.
        await ask(server.port, "ACL", "SETUSER", OBJECT_ID, "resetpass")
        await ask(server.port, "CLIENT", "KILL", "USER", OBJECT_ID)
        await run_and_read(service)
        assert len(endpoint.tokens) > issued
        assert not any(token in service.log for token in endpoint.tokens)
        assert "Traceback" not in service.log


async def test_a_service_signs_in_to_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Every node of a cluster is signed in to with the identity's token."""
    with (
        identity_endpoint(*cluster.servers) as endpoint,
        signed_in_service(tmp_path / "data", cluster.url, endpoint) as service,
    ):
        await run_and_read(service)
        assert endpoint.tokens


async def test_an_identity_endpoint_that_hangs_is_an_honest_error(
    server: RedisServer, tmp_path: Path
) -> None:
    """Where Entra ID gives no token, Redis counts as away: a 503, in bounded time."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hanging = IdentityEndpoint([], f"http://127.0.0.1:{silent.getsockname()[1]}/msi/token")
        with signed_in_service(tmp_path / "data", server.url, hanging) as service:
            async with connect_http(service) as http:
                response = await http.get("/api/agent/stream/c")
                assert (response.status_code, response.json()["code"]) == (503, "stream_unavailable")
