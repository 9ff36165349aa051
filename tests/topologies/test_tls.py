"""A cluster and sentinels behind TLS, with an authority of one's own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from streaming.connections import connect, subscription
from tests.certificates import Certificates, make_certificates
from tests.service import free_port
from tests.topologies.servers import SERVICE, Cluster, running, start_server, wait_for

CHANNEL = "c"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A server's certificate, and its authority."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server_with_tls() -> Path:
    """Redis: the embedded Valkey is built without TLS."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server, which has TLS, is not installed")
    return Path(found)


def tls(port: int, certificates: Certificates) -> dict[str, str]:
    """A server's settings."""
    return {
        "tls-port": str(port),
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.authority),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }


def as_options(settings: dict[str, str]) -> list[str]:
    """Settings for a command line."""
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


async def is_usable(url: str) -> bool:
    """Whether commands and subscriptions work."""
    redis = connect(url)
    pubsub = subscription(redis, ignore_subscribe_messages=True)
    try:
        await asyncio.gather(*(redis.set(f"k{number}", "v") for number in range(20)))
        await pubsub.subscribe(CHANNEL)
        await redis.publish(CHANNEL, "x")
        for _ in range(5):
            if await pubsub.get_message(timeout=1):
                return True
        return False
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        await redis.aclose()


@pytest.fixture(scope="module")
def cluster_behind_tls(
    tmp_path_factory: pytest.TempPathFactory, server_with_tls: Path, certificates: Certificates
) -> Iterator[str]:
    """A cluster that tells clients with TLS the ports that have TLS."""
    ports: dict[int, int] = {}

    def more(port: int) -> list[str]:
        ports[port] = free_port()
        return as_options({**tls(ports[port], certificates), "tls-cluster": "yes"})

    with running(Cluster(server_with_tls, tmp_path_factory.mktemp("tls"), more=more)):
        yield "rediss+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports.values())


@contextmanager
def sentinel_behind_tls(binary: Path, folder: Path, certificates: Certificates) -> Iterator[str]:
    """One master and one sentinel, both with nothing but TLS."""
    master, port = free_port(), free_port()
    server = start_server(
        binary, folder / "master", "--port", "0", *as_options(tls(master, certificates)), port=free_port()
    )
    settings = {"port": "0", "dir": str(folder), **tls(port, certificates)}
    config = folder / "sentinel.conf"
    lines = [f"{name} {value}" for name, value in settings.items()]
    config.write_text("\n".join([*lines, f"sentinel monitor {SERVICE} 127.0.0.1 {master} 1", ""]))
    process = subprocess.Popen([binary, str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield f"rediss+sentinel://127.0.0.1:{port}/{SERVICE}"
    finally:
        process.kill()
        process.wait()
        server.kill()


async def test_a_cluster_behind_tls(cluster_behind_tls: str, certificates: Certificates) -> None:
    """All nodes, and the subscription, are reached by TLS; without the authority none is trusted."""
    assert await is_usable(f"{cluster_behind_tls}?ssl_ca_certs={certificates.authority}")
    with pytest.raises(RedisError):
        await is_usable(cluster_behind_tls)


async def test_sentinels_behind_tls(
    tmp_path: Path, server_with_tls: Path, certificates: Certificates
) -> None:
    """The sentinels are reached by TLS as the master is."""
    with sentinel_behind_tls(server_with_tls, tmp_path, certificates) as url:
        await wait_for(lambda: is_usable(f"{url}?ssl_ca_certs={certificates.authority}"), "it is usable")
        with pytest.raises(RedisError):
            await is_usable(url)
