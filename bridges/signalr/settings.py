"""Settings of the push: where the SignalR service is, and how one signs in to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from streaming.environment import Environment, minutes

#: The setting, and the name by which the published sample and Azure Functions' own bindings know it.
CONNECTION_STRING: Final = ("AZURE_SIGNALR_CONNECTION_STRING", "AzureSignalRConnectionString")
#: Characters of an access key: as many bytes as SHA-256 has (RFC 7518, 3.2).
_MIN_KEY_LENGTH: Final = 32
_FORM: Final = (
    "Endpoint=https://NAME.service.signalr.net;AccessKey=…;Version=1.0; (or AuthType=azure.msi in place of"
    " the key)"
)
#: What the service takes for a hub's name.
_HUB: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class EntraSignIn:
    """Signing in with Microsoft Entra ID. With none of these: whatever the environment offers."""

    #: ``True``: the managed identity, and nothing else.
    managed_identity: bool = False
    client_id: str | None = None
    tenant_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SignalRAddress:
    """Where a SignalR service is, and how to sign in: what a connection string says."""

    #: Without a slash at its end. Tokens are made out to it.
    endpoint: str
    access_key: str | None = field(default=None, repr=False)
    #: ``None``: the access key signs.
    entra: EntraSignIn | None = None
    #: Where clients connect, if not to the endpoint: a gateway in front of it.
    client_endpoint: str | None = None

    def client_url(self, hub: str) -> str:
        """Where clients connect."""
        return f"{self.client_endpoint or self.endpoint}/client/?hub={hub}"

    @property
    def client_origins(self) -> tuple[str, str]:
        """What a page has to be allowed to reach: where clients negotiate, and where their WebSockets are."""
        origin = self.client_endpoint or self.endpoint
        return origin, f"ws{origin.removeprefix('http')}"

    def client_audience(self, hub: str) -> str:
        """Whom clients' tokens are for, wherever these connect."""
        return f"{self.endpoint}/client/?hub={hub}"


@dataclass(frozen=True, slots=True)
class SignalRSettings:
    """Everything that can be set of the push."""

    #: ``None``: no push, unless the host brings a service of its own.
    address: SignalRAddress | None = None
    #: The hub of the published sample, so that its settings work unchanged.
    hub: str = "travel"
    #: How long a client may connect with the token that it was given.
    token_ttl: timedelta = timedelta(hours=1)
    #: Where the standalone host's emulator listens; 0: any free port.
    emulator_port: int = 0

    @classmethod
    def read(cls, env: Environment) -> SignalRSettings:
        """Read them from the environment.

        Raises:
            SettingsError: a value can't be used.
        """
        address = None
        for name in CONNECTION_STRING:
            address = address or env.read(name, parse_connection_string)
        read: dict[str, Any] = {
            "address": address,
            "hub": env.read("SIGNALR_HUB_NAME", _hub),
            "token_ttl": env.read("SIGNALR_TOKEN_TTL_MINUTES", minutes),
            "emulator_port": env.read("SIGNALR_EMULATOR_PORT", _port),
        }
        return cls(**{name: value for name, value in read.items() if value is not None})

    def at(self, connection_string: str) -> SignalRSettings:
        """The same, with this service."""
        return replace(self, address=parse_connection_string(connection_string))


def parse_connection_string(value: str) -> SignalRAddress:
    """Read a connection string as the service's portal gives it. No error repeats a key.

    Raises:
        ValueError: it can't be used.
    """
    pairs = [pair.partition("=") for pair in value.split(";") if pair.strip()]
    parts = {name.strip().lower(): content.strip() for name, _, content in pairs}
    if parts.get("version", "1.0").partition(".")[0] != "1":
        raise ValueError(f"got Version={parts['version']}, expected {_FORM}.")
    client_endpoint = parts.get("clientendpoint")
    return SignalRAddress(
        endpoint=_endpoint("Endpoint", parts.get("endpoint", ""), parts.get("port")),
        client_endpoint=_endpoint("ClientEndpoint", client_endpoint, None) if client_endpoint else None,
        **_sign_in(parts),
    )


def _endpoint(name: str, value: str, port: str | None) -> str:
    try:
        parts = urlsplit(value.rstrip("/"))
        given_port = parts.port
    except ValueError:
        raise ValueError(f"{name} is not a URL: expected {_FORM}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
        raise ValueError(f"no {name}=http(s)://…: expected {_FORM}.")
    if port is not None and given_port is None:
        return f"{parts.scheme}://{parts.netloc}:{_port(port)}"
    return f"{parts.scheme}://{parts.netloc}"


def _sign_in(parts: Mapping[str, str]) -> dict[str, Any]:
    kind = parts.get("authtype", "").lower()
    if not kind:
        key = parts.get("accesskey", "")
        if len(key) < _MIN_KEY_LENGTH:
            problem = "no AccessKey" if not key else f"an AccessKey of {len(key)} characters"
            raise ValueError(f"{problem}, expected {_MIN_KEY_LENGTH} or more: {_FORM}.")
        return {"access_key": key}
    if kind not in ("azure", "azure.msi", "azure.app"):
        raise ValueError(
            f"got AuthType={parts['authtype']}, expected azure, azure.msi or azure.app, or an AccessKey."
        )
    entra = EntraSignIn(
        managed_identity=kind == "azure.msi",
        client_id=parts.get("clientid"),
        tenant_id=parts.get("tenantid"),
        client_secret=parts.get("clientsecret"),
    )
    if kind == "azure.app" and not (entra.client_id and entra.tenant_id and entra.client_secret):
        raise ValueError("AuthType=azure.app, but not all of ClientId, TenantId and ClientSecret.")
    return {"entra": entra}


def _hub(value: str) -> str:
    if not _HUB.fullmatch(value):
        raise ValueError(f"got {value!r}, expected a letter, then letters, digits and _, at most 128 in all.")
    return value


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= _MAX_PORT):
        raise ValueError(f"got {value!r}, expected a port from 1 to 65535.")
    return int(value)
