"""Each setting alone replaces one embedded part: Redis, the task hub, the model."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from durabletask.entities import EntityInstanceId
from redis.asyncio import Redis

from hosting.embedded.redis_server import find_server
from hosting.embedded.task_hub import EmbeddedTaskHub
from tests.certificates import make_certificates
from tests.openai_endpoint import openai_endpoint
from tests.service import PATIENCE, Service, connect_http, finished_run, free_port, running_service

PASSWORD = "pass-word"


@dataclass(frozen=True, slots=True)
class PrivateRedis:
    """A Redis with a password, on a port and on a socket."""

    port: int
    unix_socket: Path


@pytest.fixture(scope="module")
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """Somebody else's server."""
    binary = find_server()
    if binary is None:
        pytest.skip("a Redis server is not installed")
    folder = tmp_path_factory.mktemp("r")
    private = PrivateRedis(free_port(), folder / "s")
    command = [str(binary.path), "--port", str(private.port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--requirepass", PASSWORD, "--unixsocket", str(private.unix_socket), "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _wait_until_listening(private.port)
    yield private
    process.terminate()
    process.wait(PATIENCE)


def _wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError(f"nothing listens on {port}")


async def answer_and_stream(service: Service) -> tuple[str, str, str]:
    """A finished run's answer, its stream as plain text, and its conversation."""
    async with connect_http(service) as http:
        run = await finished_run(http)
        conversation = str(run["conversation_id"])
        streamed = await http.get(f"/api/agent/stream/{conversation}", headers={"accept": "text/plain"})
        return str(run["response"]), streamed.text, conversation


@pytest.mark.parametrize(
    "form", ["redis://:{password}@127.0.0.1:{port}/3", "unix://:{password}@{socket}?db=4"]
)
async def test_streams_go_to_the_configured_redis(
    tmp_path: Path, private_redis: PrivateRedis, form: str
) -> None:
    """REDIS_CONNECTION_STRING, with a password, by port or by socket, holds the streams."""
    url = form.format(password=PASSWORD, port=private_redis.port, socket=private_redis.unix_socket)
    with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=url) as service:
        answer, streamed, conversation = await answer_and_stream(service)
        assert answer == streamed != ""
        async with Redis.from_url(url) as redis:
            assert await redis.xlen(f"agent-stream:{conversation}") > 100
        assert PASSWORD not in service.log
        # No embedded Redis keeps anything here.
        assert {path.name for path in (tmp_path / "data").iterdir()} <= {"signalr-emulator.key"}


async def test_streams_go_to_a_redis_behind_tls(tmp_path: Path) -> None:
    """With rediss:// the connection is encrypted, and the server's certificate is checked."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server, which has TLS, is not installed")
    certificates = make_certificates(tmp_path)
    port = free_port()
    command = [server, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--tls-cert-file", str(certificates.certificate), "--tls-key-file", str(certificates.key)]
    command += ["--tls-auth-clients", "no", "--requirepass", PASSWORD, "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - starts at once
    try:
        _wait_until_listening(port)
        url = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"
        trusting = f"{url}?ssl_ca_certs={certificates.authority}"
        with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=trusting) as service:
            answer, streamed, _ = await answer_and_stream(service)
            assert answer == streamed != ""
        with running_service(tmp_path / "other", REDIS_CONNECTION_STRING=url) as service:
            async with connect_http(service) as http:
                assert (await http.get("/api/agent/stream/c")).status_code == 503
    finally:
        process.terminate()
        process.wait(PATIENCE)


async def test_a_redis_that_is_away_is_an_honest_error(tmp_path: Path) -> None:
    """While the configured Redis does not answer, requests get 503 with Retry-After and no driver's words."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    with running_service(tmp_path / "data", REDIS_CONNECTION_STRING=url) as service:
        async with connect_http(service) as http:
            for method, path in (
                ("POST", "/api/agents/TravelPlanner/run"),
                ("GET", "/api/agents/TravelPlanner/run/c"),
                ("GET", "/api/agent/stream/c"),
            ):
                response = await http.request(
                    method, path, content="Plan a trip" if method == "POST" else None
                )
                assert response.status_code == 503
                assert response.json()["code"] == "stream_unavailable"
                assert response.headers["retry-after"]
            health = await http.get("/api/health")
            assert (health.status_code, health.json()["redis"]) == (503, "unavailable")
            again = await http.get("/api/agent/stream/c", headers={"last-event-id": "1-0"})
            assert (again.status_code, again.text) == (200, "retry: 3000\n\n")


async def test_runs_go_to_the_configured_scheduler(tmp_path: Path) -> None:
    """DURABLE_TASK_SCHEDULER_CONNECTION_STRING makes the scheduler's own client and worker run the agents."""
    hub = EmbeddedTaskHub()
    address = hub.start()
    try:
        scheduler = f"Endpoint=http://{address};TaskHub=default;Authentication=None"
        settings = {"DURABLE_TASK_SCHEDULER_CONNECTION_STRING": scheduler}
        with running_service(tmp_path / "data", **settings) as service:
            answer, streamed, conversation = await answer_and_stream(service)
        assert answer == streamed != ""
        entity = EntityInstanceId("dafx-TravelPlanner", conversation)
        assert str(entity) in hub._entities
    finally:
        hub.stop(0)


async def test_a_scheduler_that_is_away_is_an_honest_error(tmp_path: Path) -> None:
    """While the scheduler does not answer, a run is refused with 503, and its stream ends with a reason."""
    scheduler = f"Endpoint=http://127.0.0.1:{free_port()};TaskHub=default;Authentication=None"
    settings = {"DURABLE_TASK_SCHEDULER_CONNECTION_STRING": scheduler}
    with running_service(tmp_path / "data", **settings) as service:
        async with connect_http(service) as http:
            body = {"message": "Plan a trip", "conversation_id": "c"}
            response = await http.post("/api/agents/TravelPlanner/run", json=body)
            assert (response.status_code, response.json()["code"]) == (503, "task_hub_unavailable")
            stream = await http.get("/api/agent/stream/c")
            assert "event: error" in stream.text
            assert "not_started" in stream.text


async def test_answers_come_from_the_configured_model(tmp_path: Path) -> None:
    """OPENAI_BASE_URL and OPENAI_MODEL make any compatible endpoint the model, its tool calls executed."""
    async with openai_endpoint() as endpoint:
        settings = {
            "OPENAI_BASE_URL": f"{endpoint.url}/v1",
            "OPENAI_MODEL": "m",
            "OPENAI_API_KEY": "sk-secret",
        }
        with running_service(tmp_path / "data", **settings) as service:
            answer, streamed, _ = await answer_and_stream(service)
            assert "sk-secret" not in service.log
    assert answer == streamed != ""
    assert [request.headers["authorization"] for request in endpoint.requests] == ["Bearer sk-secret"] * 2


async def test_a_model_that_refuses_ends_the_stream_with_a_reason(tmp_path: Path) -> None:
    """When nothing listens at the model's address the run fails: an error event, an error status, one try."""
    settings = {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1", "OPENAI_MODEL": "m"}
    with running_service(tmp_path / "data", **settings) as service:
        async with connect_http(service) as http:
            body = {"message": "Plan a trip", "conversation_id": "c", "wait_for_response": True}
            response = await http.post("/api/agents/TravelPlanner/run", json=body)
            assert (response.status_code, response.json()["code"]) == (502, "agent_failed")
            stream = await http.get("/api/agent/stream/c")
            assert '"code":"agent_failed"' in stream.text
            status = (await http.get("/api/agents/TravelPlanner/run/c")).json()
            assert (status["status"], status["attempt"]) == ("Failed", 1)
        assert "Traceback" not in service.log
