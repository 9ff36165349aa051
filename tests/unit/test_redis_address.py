"""Connection strings of each topology."""

from __future__ import annotations

import re

import pytest
from redis.asyncio.connection import parse_url

from streaming.redis_address import EntraSignIn, Node, Topology, parse_redis_address


@pytest.mark.parametrize(
    "value",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "rediss://user:pa%40ss@redis.example:6380/1?ssl_ca_certs=%2Fca.pem",
        "redis://[::1]:6379/2",
        "unix:///run/redis.sock?db=4",
        "unix://:pass@/run/redis.sock",
    ],
)
def test_one_server_is_left_to_the_driver(value: str) -> None:
    """What names one server reaches the driver as it is."""
    address = parse_redis_address(value)
    assert (address.topology, address.driver_url, address.nodes) == (Topology.SINGLE, value, ())
    assert address.is_socket == value.startswith("unix")


def test_the_form_of_the_azure_portal() -> None:
    """What the portal shows is taken as it is; an access key may hold ``=``, ``/`` and ``+``."""
    shown = "name.region.redis.azure.net:10000,password=a/b+c=,ssl=True,abortConnect=False"
    address = parse_redis_address(shown)
    assert address.topology is Topology.SINGLE
    assert address.driver_url == "rediss://:a%2Fb%2Bc%3D@name.region.redis.azure.net:10000/0"
    assert parse_url(address.driver_url)["password"] == "a/b+c="
    for unusable in (
        "hunter2",
        "h:1,hunter2",
        "h:1,ssl=True",
        "password=hunter2,ssl=True",
        "h:x,password=hunter2",
    ):
        with pytest.raises(ValueError, match=r"\.$") as caught:
            parse_redis_address(unusable)
        assert "hunter2" not in str(caught.value)


def test_a_cluster() -> None:
    """Several nodes, each with its port or Redis's own; user and password are for all of them."""
    address = parse_redis_address("redis+cluster://user:pa%40ss@a:7000,b,[::1]:7002")
    assert address.topology is Topology.CLUSTER
    assert address.nodes == (Node("a", 7000), Node("b", 6379), Node("::1", 7002))
    assert address.driver_url == "redis://user:pa%40ss@a:7000/0"


def test_a_cluster_behind_tls() -> None:
    """rediss+cluster:// with the options of TLS."""
    address = parse_redis_address("rediss+cluster://a:1?ssl_ca_certs=/ca.pem")
    assert address.driver_url == "rediss://a:1/0?ssl_ca_certs=%2Fca.pem"


def test_sentinels() -> None:
    """The sentinels, the service's name, a database, and the sentinels' own user."""
    address = parse_redis_address(
        "redis+sentinel://u:p@a:1,b/my%20streams/3?sentinel_username=s&sentinel_password=q%40"
    )
    assert address.topology is Topology.SENTINEL
    assert address.nodes == (Node("a", 1), Node("b", 26379))
    assert (address.service, address.driver_url) == ("my streams", "redis://u:p@a:1/3")
    assert (address.sentinel_username, address.sentinel_password) == ("s", "q@")


@pytest.mark.parametrize("form", ["rediss://a:1", "rediss+cluster://a:1,b:2", "rediss+sentinel://a/s"])
def test_entra_id_signs_in_on_any_form(form: str) -> None:
    """auth=entra, with the id of a managed identity where there is one, is not passed to the driver."""
    assert parse_redis_address(f"{form}?auth=entra").entra == EntraSignIn()
    address = parse_redis_address(f"{form}?auth=entra&client_id=id")
    assert address.entra == EntraSignIn("id")
    assert "entra" not in address.driver_url
    assert "client_id" not in address.driver_url


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hunter2", "expected redis://"),
        ("http://hunter2", "expected redis://"),
        ("redis+ring://hunter2", "expected redis://"),
        ("unix+cluster://hunter2", "expected redis://"),
        ("redis://:hunter2@", "no host in it"),
        ("redis://:hunter2@host:port", "a port is not a number"),
        ("redis://[hunter2", "not a URL"),
        ("unix://", "no socket in it"),
        ("redis://:hunter2@a,b", "several hosts in it"),
        ("redis://:hunter2@a/x", "the database is not a number"),
        ("redis+cluster://:hunter2@a:1,", "no host in it"),
        ("redis+cluster://:hunter2@a:99999", "a port is not a number"),
        ("redis+cluster://:hunter2@a/1", "database 0 only"),
        ("redis+sentinel://:hunter2@a:1", "no service name in it"),
        ("redis+sentinel://:hunter2@a:1/s/x", "the database is not a number"),
        ("redis://:hunter2@a?sentinel_password=hunter2", "redis+sentinel:// only"),
        ("redis://:hunter2@a?auth=entra", "leave those out"),
        ("redis://a?auth=hunter2", "expected auth=entra"),
        ("redis://a?client_id=hunter2", "without auth=entra"),
        ("redis://:hunter2@a?hunter2=hunter2", "a query parameter that is not known"),
        ("redis+cluster://:hunter2@a?timeout=1", "for one server only"),
        ("redis+sentinel://:hunter2@a/s?max_connections=1", "for one server only"),
        ("redis+cluster://:hunter2@a?db=0", "not for a cluster"),
        ("redis://:hunter2@a?socket_timeout=hunter2", "a query parameter has a value"),
    ],
)
def test_what_can_not_be_used_is_told_without_the_value(value: str, expected: str) -> None:
    """A refusal names the remedy, and nothing of what may be a password."""
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        parse_redis_address(value)
    assert "hunter2" not in str(refused.value)


def test_passwords_are_not_shown() -> None:
    """An address can be logged."""
    shown = repr(parse_redis_address("redis+sentinel://u:hunter2@a/s?sentinel_password=hunter3"))
    assert "hunter" not in shown
