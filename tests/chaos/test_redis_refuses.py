"""Redis answers, but refuses: full, read-only, loading, busy, moved, forbidden. docs/protocol.md, 3.6."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from redis_stream_response_handler import RedisStreamResponseHandler
from tests.chaos.redis_load import Load, assert_whole, handler_on, leases_on, read
from tests.contract.scripted_agent import DurableConversation, ScriptedAgent, said
from tests.fault_proxy import Answer, Fault, FaultProxy, fault_proxy
from tests.redis_server import RedisServer, redis_server
from tests.service import (
    Service,
    connect_http,
    eventually,
    finished_run,
    free_port,
    running_service,
)

RUNS: Final = 20
CHUNKS: Final = 60
#: How long Redis refuses, in seconds.
REFUSAL: Final = 0.6
#: An endless script; nothing writes before it, so it can be killed.
ENDLESS: Final = "while true do end"

#: When two tasks of the driver reconnect one subscription at once, a socket is left to be collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

Refusal = Callable[[RedisServer, Redis], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def out_of_memory(_server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """Every write is refused with OOM."""
    await admin.config_set("maxmemory", 1)
    yield
    await admin.config_set("maxmemory", 0)


@asynccontextmanager
async def read_only(_server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """The server is a replica for a while."""
    await admin.replicaof("127.0.0.1", free_port())
    yield
    await admin.replicaof("NO", "ONE")


@asynccontextmanager
async def scripts_forgotten(_server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """The server's scripts are gone."""
    await admin.script_flush()
    yield


@asynccontextmanager
async def busy(server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """Somebody's script runs for ever, until it is killed."""
    await admin.config_set("busy-reply-threshold", 10)
    async with administrator(server) as other:
        script = asyncio.ensure_future(command(other, "EVAL", ENDLESS, 0))
        yield
        await admin.script_kill()
        with contextlib.suppress(RedisError):
            await script


@asynccontextmanager
async def disk_broken(server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """Snapshots fail, and the server takes no writes because of it."""
    (server.folder / "dump.rdb").mkdir()
    await admin.config_set("save", "3600 100000000")
    await admin.bgsave()

    async def has_failed() -> bool:
        return str((await admin.info("persistence"))["rdb_last_bgsave_status"]) == "err"

    await eventually(has_failed, "a snapshot that fails")
    yield
    await admin.config_set("stop-writes-on-bgsave-error", "no")


def forbidden(*permissions: str) -> Refusal:
    """The user loses permissions."""

    @asynccontextmanager
    async def refusal(_server: RedisServer, admin: Redis) -> AsyncIterator[None]:
        await command(admin, "ACL", "SETUSER", "default", *permissions)
        yield
        await command(admin, "ACL", "SETUSER", "default", "+@all", "allchannels", "allkeys")

    refusal.__name__ = " ".join(permissions)
    return refusal


@asynccontextmanager
async def password_changed(_server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """All are thrown out and not let in again."""
    await command(admin, "ACL", "SETUSER", "default", "resetpass", ">changed")
    await command(admin, "CLIENT", "KILL", "USER", "default")
    yield
    await command(admin, "ACL", "SETUSER", "default", "nopass")


@asynccontextmanager
async def too_many_clients(_server: RedisServer, admin: Redis) -> AsyncIterator[None]:
    """All are thrown out, and there is no room to come back."""
    await admin.config_set("maxclients", 1)
    await command(admin, "CLIENT", "KILL", "USER", "default")
    yield
    await admin.config_set("maxclients", 1000)


async def one_more_run(handler: RedisStreamResponseHandler) -> None:
    """A run and its reader that begin while Redis refuses."""
    reading = asyncio.create_task(read(handler, "late"))
    response = await DurableConversation(handler, ScriptedAgent(*said("in ", "time")), "late").start("r")
    assert response.text == "in time"
    # It may have come before the run was known.
    given = await reading
    assert_whole(given if given[-1].code is None else await read(handler, "late"), "in time")


async def nothing_is_lost(
    handler: RedisStreamResponseHandler, url: str, refusal: AbstractAsyncContextManager[None]
) -> None:
    """Runs, readers and leases live through a refusal, also those that begin in it."""
    async with leases_on(url) as leases:

        async def refuse() -> None:
            async with refusal:
                late = asyncio.create_task(one_more_run(handler))
                # The time that it lasts is the fault itself, nothing that is waited for.
                await asyncio.sleep(REFUSAL)
            await late

        given = await Load(handler, leases, runs=RUNS, chunks=CHUNKS).under(refuse)
    assert {chunk.type for chunks in given.values() for chunk in chunks} == {None}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of its own, with an administrator that no refusal is for."""
    with redis_server(tmp_path) as made:
        await _start_with_administrator(made)
        yield made


async def _start_with_administrator(server: RedisServer) -> None:
    await server.start()
    async with server.client() as redis:
        await command(redis, "ACL", "SETUSER", "admin", "on", ">admin", "+@all", "~*", "&*")


def command(redis: Redis, *words: str | int) -> Awaitable[Any]:
    """Send a command for which the driver has no method that fits."""
    sent: Awaitable[Any] = redis.execute_command(*words)  # type: ignore[no-untyped-call]
    return sent


def administrator(server: RedisServer) -> Redis:
    """A client that no refusal is for."""
    return Redis(port=server.port, username="admin", password="admin", protocol=2)


@pytest.mark.parametrize(
    "refuse",
    [
        out_of_memory,
        read_only,
        scripts_forgotten,
        busy,
        disk_broken,
        forbidden("-@all"),
        forbidden("-xadd"),
        forbidden("-hset"),
        forbidden("-pexpire"),
        forbidden("-publish"),
        forbidden("resetchannels"),
        forbidden("-@read"),
        password_changed,
        too_many_clients,
    ],
    ids=lambda refuse: refuse.__name__,
)
async def test_a_refusal_costs_time_only(server: RedisServer, refuse: Refusal) -> None:
    """Redis refuses for a while, in the middle of runs: every entry once, nothing again, no error shown."""
    async with handler_on(server.url) as handler, administrator(server) as admin:
        await nothing_is_lost(handler, server.url, refuse(server, admin))


@pytest.fixture(scope="module")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a service and its Redis keep their data."""
    return tmp_path_factory.mktemp("refused")


@pytest.fixture(scope="module")
def shared_server(service_folder: Path) -> Iterator[RedisServer]:
    """A server with a service on it, for tests that leave it as they found it."""
    with redis_server(service_folder / "redis") as made:
        asyncio.run(_start_with_administrator(made))
        yield made


@pytest.fixture(scope="module")
def service(service_folder: Path, shared_server: RedisServer) -> Iterator[Service]:
    """A service on that server."""
    with running_service(service_folder / "data", REDIS_CONNECTION_STRING=shared_server.url) as running:
        yield running


@pytest.mark.parametrize(
    "refuse",
    [out_of_memory, read_only, busy, forbidden("-@all"), password_changed, too_many_clients],
    ids=lambda refuse: refuse.__name__,
)
async def test_the_service_says_503_meanwhile(
    shared_server: RedisServer, service: Service, refuse: Refusal
) -> None:
    """While Redis refuses, health and requests say 503 and tell nothing of Redis; then all is well again."""
    async with connect_http(service) as http, administrator(shared_server) as admin:

        async def is_healthy() -> bool:
            return (await http.get("/api/health")).status_code == 200

        async def is_unavailable() -> bool:
            return (await http.get("/api/health")).status_code == 503

        await eventually(is_healthy, "health")
        async with refuse(shared_server, admin):
            await eventually(is_unavailable, "health says 503")
            body = {"message": "hi", "wait_for_response": False}
            response = await http.post("/api/agents/TravelPlanner/run", json=body)
            assert (response.status_code, response.json()["code"]) == (503, "stream_unavailable")
            assert not re.search("OOM|READONLY|BUSY|NOPERM|AUTH|WRONGPASS|clients", response.text)
        await eventually(is_healthy, "health")
        answer = (await finished_run(http))["response"]
        assert answer


@asynccontextmanager
async def answering(proxy: FaultProxy, reply: bytes) -> AsyncIterator[None]:
    """Every command with a key is answered so."""

    def rule(words: Sequence[bytes]) -> Fault | None:
        has_key = any(b"agent-stream:" in word for word in words) and words[0] != b"SUBSCRIBE"
        return Answer(reply) if has_key else None

    async def all_have_met_it() -> bool:
        return proxy.faults > RUNS

    proxy.rule = rule
    yield
    await eventually(all_have_met_it, "as many refusals as there are runs")
    proxy.rule = None


@pytest.mark.parametrize(
    "reply",
    [
        b"-MOVED 3999 127.0.0.1:6381",
        b"-ASK 3999 127.0.0.1:6381",
        b"-CLUSTERDOWN The cluster is down",
        b"-TRYAGAIN Multiple keys request during rehashing of slot",
        b"-LOADING Redis is loading the dataset in memory",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        b"-NOREPLICAS Not enough good replicas to write.",
        b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        b"-CROSSSLOT Keys in request don't hash to the same slot",
        b"-",
        b"?what",
    ],
)
async def test_a_strange_answer_costs_time_only(server: RedisServer, reply: bytes) -> None:
    """A cluster or proxy in trouble answers every command with an error: every entry once, nothing again."""
    async with fault_proxy(server.port) as proxy, handler_on(proxy.url) as handler:
        await nothing_is_lost(handler, proxy.url, answering(proxy, reply + b"\r\n"))
