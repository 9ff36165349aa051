"""Users with as few rights as the service needs, and Microsoft Entra ID."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from redis.exceptions import RedisError

from streaming import entra_sign_in
from streaming.connections import connect
from streaming.identifiers import keys_of
from tests.service import connect_http, finished_run, open_events, read_events, running_service, start_run
from tests.topologies.servers import (
    Cluster,
    SentinelGroup,
    Server,
    answers,
    ask,
    start_server,
    valkey,
    wait_for,
)

USER = "streams"
PASSWORD = "pass-word"
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "redis.md"


def documented_rules() -> list[str]:
    """The rules of the user, as the documentation tells them."""
    lines = DOCUMENTATION.read_text(encoding="utf-8").splitlines()
    rules = next(line for line in lines if line.startswith(f"ACL SETUSER {USER} "))
    return rules.replace("PASSWORD", PASSWORD).split()[3:]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """One server."""
    started = start_server(valkey(), tmp_path / "server")
    await wait_for(lambda: answers(started.port), "the server answers")
    yield started
    started.kill()


async def use_everything(url: str, folder: Path) -> None:
    """Let a service do all that it ever asks of Redis."""
    with running_service(folder / "data", REDIS_CONNECTION_STRING=url) as service:
        async with connect_http(service) as http:
            run = await finished_run(http)
            conversation = str(run["conversation_id"])
            assert await read_events(http, conversation)
            assert await read_events(http, conversation, params={"cursor": "0"})
            await http.post("/api/agents/CallbackAgent/run?thread_id=told", content="Tell me a joke")
            told = await http.get("/api/agents/CallbackAgent/callbacks/told")
            assert told.json()[-1]["event_type"] == "final"
            assert (await http.delete("/api/agents/CallbackAgent/callbacks/told")).status_code == 204
    with running_service(
        folder / "slow", REDIS_CONNECTION_STRING=url, DEMO_MODEL_WORDS_PER_SECOND="5"
    ) as service:
        async with connect_http(service) as http:
            run = await start_run(http)
            async with open_events(http, str(run["conversation_id"])) as stream:
                await stream.up_to("message")
                cancelled = await http.delete(f"/api/agents/TravelPlanner/run/{run['conversation_id']}")
                assert cancelled.status_code < 300, cancelled.text
                await stream.up_to("done")
            redis = connect(url)
            await redis.xadd(keys_of("foreign").stream, {"text": "a"})
            async with open_events(http, "foreign") as stream:
                # The second may be found as the reader begins to wait.
                for text in ("b", "c"):
                    await stream.up_to("message")
                    await redis.xadd(keys_of("foreign").stream, {"text": text})
                await redis.xadd(keys_of("foreign").stream, {"text": "", "done": "true"})
                await stream.up_to("done")
            await redis.delete(keys_of("foreign").stream)
            await redis.aclose()
            assert PASSWORD not in service.log


async def refused(port: int) -> list[Any]:
    """What a server did not let a user do."""
    return list(await ask(port, "ACL", "LOG"))


async def test_the_documented_rules_are_enough(server: Server, tmp_path: Path) -> None:
    """A user with the rules of docs/redis.md, and no others, can do all that the service does."""
    await ask(server.port, "ACL", "SETUSER", USER, *documented_rules())
    await use_everything(f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0", tmp_path)
    assert await refused(server.port) == []
    for command in (("FLUSHALL",), ("GET", "other"), ("CONFIG", "GET", "*"), ("KEYS", "*")):
        with pytest.raises(RedisError):
            await ask(server.port, *command, username=USER, password=PASSWORD)


async def test_rules_of_earlier_versions_are_enough(server: Server, tmp_path: Path) -> None:
    """What is only asked to save work, since a later version, may be refused: all goes on as before."""
    later = ("+pttl", "+pubsub|numsub", "+client|tracking")
    earlier = [rule for rule in documented_rules() if rule not in later]
    assert len(earlier) == len(documented_rules()) - len(later)
    await ask(server.port, "ACL", "SETUSER", USER, *earlier)
    await use_everything(f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0", tmp_path)
    objects = {
        dict(zip(entry[::2], entry[1::2], strict=True))["object"] for entry in await refused(server.port)
    }
    # The last is asked for large batches only.
    assert objects in ({"pttl", "client|tracking"}, {"pttl", "client|tracking", "pubsub|numsub"})


async def test_the_documented_rules_are_enough_where_servers_fail_over(
    topology: Cluster | SentinelGroup, tmp_path: Path
) -> None:
    """They are on a cluster and behind sentinels, too."""
    for port in topology.servers:
        await ask(port, "ACL", "SETUSER", USER, *documented_rules())
        await ask(port, "ACL", "LOG", "RESET")
    await use_everything(topology.url.replace("://", f"://{USER}:{PASSWORD}@"), tmp_path)
    for port in topology.servers:
        assert await refused(port) == []
        await ask(port, "ACL", "DELUSER", USER)


async def test_sentinels_have_their_own_user(sentinel_group: SentinelGroup) -> None:
    """sentinel_username and sentinel_password sign in to the sentinels; the documented rights are enough."""
    line = next(
        line for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines() if "+sentinel|" in line
    )
    rules = ["reset", "on", f">{PASSWORD}", *line.split("`")[1].split()]
    for sentinel in sentinel_group.sentinels:
        await ask(sentinel.port, "ACL", "SETUSER", "watcher", *rules)
        await ask(sentinel.port, "ACL", "LOG", "RESET")
    for password, is_right in ((PASSWORD, True), ("wrong", False)):
        redis = connect(f"{sentinel_group.url}?sentinel_username=watcher&sentinel_password={password}")
        if is_right:
            assert await redis.ping()
            users = [str(await ask(s.port, "CLIENT", "LIST")) for s in sentinel_group.sentinels]
            assert any("user=watcher" in listed for listed in users)
            assert [await refused(sentinel.port) for sentinel in sentinel_group.sentinels] == [[], [], []]
        else:
            with pytest.raises(RedisError):
                await redis.ping()
        await redis.aclose()


class Identity:
    """Stands in for Azure: gives out tokens."""

    token = ""
    client_ids: list[str | None]

    def __init__(self, *, managed_identity_client_id: str | None = None) -> None:
        self.client_ids.append(managed_identity_client_id)

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """The current token."""
        if not self.token:
            raise ClientAuthenticationError("no identity here")
        return AccessToken(self.token, int(time.time()) + 3600)


async def test_entra_id_signs_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection signs in with the identity's object id and the token of the moment."""
    monkeypatch.setattr(entra_sign_in, "DefaultAzureCredential", Identity)
    monkeypatch.setattr(Identity, "client_ids", [], raising=False)
    redis = connect(f"redis://127.0.0.1:{server.port}/0?auth=entra&client_id=id")
    with pytest.raises(RedisError, match="Entra ID gave no token"):
        await redis.ping()
    now = int(time.time())
    for number in range(2):
        claims = {"oid": "object-id", "iat": now, "exp": now + 3600, "jti": str(number)}
        token = jwt.encode(claims, "a key that nobody checks, long enough")
        monkeypatch.setattr(Identity, "token", token)
        await ask(server.port, "ACL", "SETUSER", "object-id", "reset", "on", f">{token}", "+@all", "~*", "&*")
        await redis.connection_pool.disconnect()
        assert await redis.acl_whoami() in (b"object-id", "object-id")
    assert Identity.client_ids == ["id"]
    await redis.aclose()
