"""Settings of who may use the HTTP routes, and of how much: docs/security.md."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from streaming.environment import Environment, minutes, parts_of, positive_integer, yes_or_no

#: Characters of an API key: a random one of this length can't be guessed over a network.
MIN_KEY_LENGTH: Final = 16
#: Characters of a secret that signs tokens: as many bytes as SHA-256 has (RFC 7518, 3.2).
MIN_SECRET_LENGTH: Final = 32
#: Bytes of a request's head that no lower limit helps: browsers send some kilobytes of their own.
_MIN_HEADER_BYTES: Final = 1_024
#: Stands for any origin, or any proxy.
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may use the routes. With none of these set, whoever reaches the service may."""

    #: Any of them opens every route.
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    #: The first signs stream tokens, all of them verify.
    token_secrets: tuple[str, ...] = field(default=(), repr=False)
    token_ttl: timedelta = timedelta(days=1)
    #: Web pages of these origins may use the service (standalone host).
    cors_origins: tuple[str, ...] = ()
    #: Whether health needs no key. ``None``: as the host does by itself.
    health_anonymous: bool | None = None
    #: Whether metrics need no key.
    metrics_anonymous: bool = False
    #: Addresses or networks whose ``X-Forwarded-For`` is believed (standalone host).
    trusted_proxies: tuple[str, ...] = ()

    @property
    def uses_tokens(self) -> bool:
        """Whether conversations have stream tokens."""
        return bool(self.token_secrets)

    @classmethod
    def read(cls, env: Environment) -> AccessSettings:
        """Read them from the environment.

        Raises:
            SettingsError: a value can't be used.
        """
        return cls(
            **_given(
                {
                    "api_keys": env.read("API_KEYS", _api_keys),
                    "token_secrets": env.read("STREAM_TOKEN_SECRETS", _token_secrets),
                    "token_ttl": env.read("STREAM_TOKEN_TTL_MINUTES", minutes),
                    "cors_origins": env.read("CORS_ALLOWED_ORIGINS", _origins),
                    "health_anonymous": env.read("HEALTH_ANONYMOUS", yes_or_no),
                    "metrics_anonymous": env.read("METRICS_ANONYMOUS", yes_or_no),
                    "trusted_proxies": env.read("TRUSTED_PROXIES", _proxies),
                }
            )
        )


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """How much one process takes on."""

    #: Streams that are open at a time: each a connection, and up to 64 KiB that a slow reader has not taken.
    max_streams: int = 20_000
    #: Of one client's address. ``None``: as ``max_streams``, since behind a proxy all clients look like one.
    max_streams_per_client: int | None = None
    #: Runs that wait or are executed.
    max_runs: int = 2_000
    #: Of a request's line and headers (standalone host).
    max_header_bytes: int = 32_768
    #: The longest response of the stream route.
    stream_max: timedelta = timedelta(minutes=240)
    #: The longest silence of a stream; heartbeats are silence.
    stream_idle: timedelta = timedelta(minutes=60)

    @classmethod
    def read(cls, env: Environment) -> LimitSettings:
        """Read them from the environment.

        Raises:
            SettingsError: a value can't be used.
        """
        return cls(
            **_given(
                {
                    "max_streams": env.read("MAX_STREAMS", positive_integer),
                    "max_streams_per_client": env.read("MAX_STREAMS_PER_CLIENT", positive_integer),
                    "max_runs": env.read("MAX_RUNS", positive_integer),
                    "max_header_bytes": env.read("MAX_HEADER_BYTES", _header_bytes),
                    "stream_max": env.read("STREAM_MAX_MINUTES", minutes),
                    "stream_idle": env.read("STREAM_IDLE_MINUTES", minutes),
                }
            )
        )


def _given(read: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in read.items() if value is not None}


def _api_keys(value: str) -> tuple[str, ...]:
    return _secrets(value, at_least=MIN_KEY_LENGTH, kind="key")


def _token_secrets(value: str) -> tuple[str, ...]:
    return _secrets(value, at_least=MIN_SECRET_LENGTH, kind="secret")


def _secrets(value: str, *, at_least: int, kind: str) -> tuple[str, ...]:
    """Read secrets. No error repeats one."""
    secrets = parts_of(value)
    if not secrets:
        raise ValueError(f"there is no {kind} between the commas.")
    for number, secret in enumerate(secrets, start=1):
        if len(secret) < at_least:
            raise ValueError(
                f"{kind} {number} has {len(secret)} characters, expected at least {at_least}."
                " Make one with: openssl rand -hex 32."
            )
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise ValueError(f"{kind} {number} has a character that is not visible ASCII.")
    return secrets


def _origins(value: str) -> tuple[str, ...]:
    # Browsers send them in lower case.
    origins = parts_of(value.lower())
    for origin in origins:
        if origin == ANY:
            continue
        if not _is_origin(origin):
            raise ValueError(
                f"got {origin!r}, expected origins such as https://app.example.com (no path, no slash at the"
                " end), or *."
            )
    return origins


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    is_exact = f"{parts.scheme}://{parts.netloc}" == text and "*" not in text
    return is_exact and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in text


def _proxies(value: str) -> tuple[str, ...]:
    proxies = parts_of(value)
    for proxy in proxies:
        try:
            if proxy != ANY:
                ipaddress.ip_network(proxy)
        except ValueError:
            raise ValueError(
                f"got {proxy!r}, expected addresses or networks such as 10.0.0.7 or 10.0.0.0/8, or *."
            ) from None
    return proxies


def _header_bytes(value: str) -> int:
    number = positive_integer(value)
    if number < _MIN_HEADER_BYTES:
        raise ValueError(
            f"got {value!r}, expected at least {_MIN_HEADER_BYTES}: browsers need some kilobytes."
        )
    return number
