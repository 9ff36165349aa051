"""``REDIS_CONNECTION_STRING``: where Redis is and what topology it has. Builds no client.

No message here repeats a part of the value: it may hold a password.
"""

from __future__ import annotations

import enum
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

_MAX_PORT: Final = 65_535
_REDIS_PORT: Final = 6_379
_SENTINEL_PORT: Final = 26_379
_FORMS: Final = (
    "expected redis://[user:password@]host:port/0, rediss://… for TLS, unix:///path/to/socket, "
    "redis+cluster://host:port,… or redis+sentinel://host:port,…/service (rediss+… for TLS)."
)
#: Query parameters that are ours; all others are the driver's.
_SIGN_IN: Final = "auth"
_CLIENT_ID: Final = "client_id"
_SENTINEL_USERNAME: Final = "sentinel_username"
_SENTINEL_PASSWORD: Final = "sentinel_password"  # noqa: S105 - a parameter's name
#: Query parameters of the driver that mean something here.
_DRIVERS: Final = frozenset(
    (
        *("client_name", "db", "decode_responses", "health_check_interval", "max_connections"),
        *("socket_connect_timeout", "socket_keepalive", "socket_timeout", "timeout"),
        *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"),
        *("ssl_check_hostname", "ssl_ciphers", "ssl_min_version", "ssl_password"),
    )
)
#: Those of them that are for one server only: a cluster and sentinels have limits of their own here.
_SINGLE_ONLY: Final = frozenset(("max_connections", "timeout"))
#: Those that the driver does not take for a cluster.
_NOT_ON_A_CLUSTER: Final = frozenset(("db", "ssl_ca_path", "ssl_password"))


class Topology(enum.StrEnum):
    """How the servers stand together."""

    #: One address, which may be a managed service's.
    SINGLE = "single"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class Node:
    """A server's address."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class EntraSignIn:
    """Sign in with Microsoft Entra ID."""

    #: Of a user-assigned managed identity; ``None``: whatever ``DefaultAzureCredential`` finds.
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and how to sign in."""

    topology: Topology
    #: ``redis://``, ``rediss://`` or ``unix://``, as the driver reads it; of several nodes, the first.
    driver_url: str = field(repr=False)
    #: The cluster's nodes to begin with, or the sentinels.
    nodes: tuple[Node, ...] = ()
    #: What the sentinels call the service.
    service: str | None = None
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    entra: EntraSignIn | None = None

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket of the file system."""
        return self.driver_url.startswith("unix:")


def parse_redis_address(value: str) -> RedisAddress:
    """Read a connection string.

    Raises:
        ValueError: it can't be used; the message says what is wrong and what is expected, never the value.
    """
    if "://" not in value:
        value = _from_azure(value)
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError("not a URL.") from None
    scheme, plus, kind = parts.scheme.partition("+")
    if scheme == "unix" and not plus:
        address = _socket(parts, value)
    elif scheme not in ("redis", "rediss") or (plus and kind not in ("cluster", "sentinel")):
        raise ValueError(_FORMS)
    elif kind == "cluster":
        address = _cluster(parts, scheme)
    elif kind == "sentinel":
        address = _sentinel(parts, scheme)
    else:
        address = _single(parts, value)
    return _with_query(address, parts.query)


def _from_azure(value: str) -> str:
    """The URL for what the Azure portal shows: ``host:port,password=…,ssl=True,abortConnect=False``."""
    place, *rest = [part.strip() for part in value.split(",")]
    pairs = {
        name.lower(): content for name, equals, content in (part.partition("=") for part in rest) if equals
    }
    if not place or "=" in place or "password" not in pairs:
        raise ValueError(_FORMS)
    scheme = "rediss" if pairs.get("ssl", "").lower() == "true" else "redis"
    # An access key has characters that mean something in a URL.
    user, password = quote(pairs.get("user", ""), safe=""), quote(pairs["password"], safe="")
    return f"{scheme}://{user}:{password}@{place}/{pairs.get('defaultdatabase', '0')}"


def _socket(parts: SplitResult, value: str) -> RedisAddress:
    if not parts.path:
        raise ValueError("no socket in it: expected unix:///path/to/socket.")
    return RedisAddress(Topology.SINGLE, value)


def _single(parts: SplitResult, value: str) -> RedisAddress:
    nodes = _nodes(parts.netloc, _REDIS_PORT)
    if len(nodes) > 1:
        raise ValueError("several hosts in it: expected redis+cluster://… or redis+sentinel://… for those.")
    _database(parts.path.strip("/"))
    return RedisAddress(Topology.SINGLE, value)


def _cluster(parts: SplitResult, scheme: str) -> RedisAddress:
    nodes = _nodes(parts.netloc, _REDIS_PORT)
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError(
            "a cluster has database 0 only: expected redis+cluster://host:port,… without a path."
        )
    return RedisAddress(Topology.CLUSTER, _driver_url(parts, scheme, nodes[0], "0"), nodes)


def _sentinel(parts: SplitResult, scheme: str) -> RedisAddress:
    nodes = _nodes(parts.netloc, _SENTINEL_PORT)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service name in it: expected redis+sentinel://host:port,…/service[/database].")
    _database(database)
    driver_url = _driver_url(parts, scheme, nodes[0], database or "0")
    return RedisAddress(Topology.SENTINEL, driver_url, nodes, unquote(service))


def _driver_url(parts: SplitResult, scheme: str, first: Node, database: str) -> str:
    credentials, at, _ = parts.netloc.rpartition("@")
    host = f"[{first.host}]" if ":" in first.host else first.host
    return urlunsplit((scheme, f"{credentials}{at}{host}:{first.port}", f"/{database}", parts.query, ""))


def _nodes(netloc: str, default_port: int) -> tuple[Node, ...]:
    return tuple(_node(part, default_port) for part in netloc.rpartition("@")[2].split(","))


def _node(text: str, default_port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"a port is not a number from 0 to {_MAX_PORT}.") from None
    if not parts.hostname:
        raise ValueError("no host in it: expected redis://host:port/0.")
    return Node(unquote(parts.hostname), default_port if port is None else port)


def _database(text: str) -> None:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("the database is not a number: expected /0 after host and port, or nothing.")


def _with_query(address: RedisAddress, query: str) -> RedisAddress:
    """Take what is ours out of the query; the rest stays for the driver."""
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    ours = {name: pairs.pop(name, None) for name in (_SIGN_IN, _CLIENT_ID)}
    entra = _entra(address, ours[_SIGN_IN], ours[_CLIENT_ID])
    username, password = pairs.pop(_SENTINEL_USERNAME, None), pairs.pop(_SENTINEL_PASSWORD, None)
    if (username or password) and address.topology is not Topology.SENTINEL:
        raise ValueError("sentinel_username and sentinel_password belong to redis+sentinel:// only.")
    _check_names(pairs.keys(), address.topology)
    _check_values(pairs)
    base = address.driver_url.partition("?")[0]
    return RedisAddress(
        topology=address.topology,
        driver_url=f"{base}?{urlencode(pairs)}" if pairs else base,
        nodes=address.nodes,
        service=address.service,
        sentinel_username=username,
        sentinel_password=password,
        entra=entra,
    )


def _check_names(names: AbstractSet[str], topology: Topology) -> None:
    if names - _DRIVERS:
        raise ValueError(f"a query parameter that is not known: expected some of {', '.join(_known())}.")
    single_only = names & _SINGLE_ONLY if topology is not Topology.SINGLE else set()
    if single_only:
        raise ValueError(f"{', '.join(sorted(single_only))}: for one server only, leave it out.")
    not_here = names & _NOT_ON_A_CLUSTER if topology is Topology.CLUSTER else set()
    if not_here:
        raise ValueError(f"{', '.join(sorted(not_here))}: not for a cluster, leave it out.")


def _check_values(pairs: dict[str, str]) -> None:
    for name, value in pairs.items():
        try:
            URL_QUERY_ARGUMENT_PARSERS.get(name, str)(value)
        except (TypeError, ValueError):
            raise ValueError("a query parameter has a value that can't be used: expected a number.") from None


def _known() -> list[str]:
    return sorted((*_DRIVERS, _SIGN_IN, _CLIENT_ID, _SENTINEL_USERNAME, _SENTINEL_PASSWORD))


def _entra(address: RedisAddress, sign_in: str | None, client_id: str | None) -> EntraSignIn | None:
    if sign_in is None:
        if client_id is not None:
            raise ValueError("client_id means nothing without auth=entra: set both, or neither.")
        return None
    if sign_in != "entra":
        raise ValueError("auth has a value that is not known: expected auth=entra.")
    if urlsplit(address.driver_url).netloc.rpartition("@")[1]:
        raise ValueError("auth=entra brings its own user and password: leave those out.")
    return EntraSignIn(client_id or None)
