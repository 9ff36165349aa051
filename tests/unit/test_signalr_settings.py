"""Settings of the push: connection strings as the service's portal gives them, and wrong ones."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridges.signalr.push import create_push
from bridges.signalr.settings import EntraSignIn, SignalRAddress, SignalRSettings, parse_connection_string
from streaming.access_settings import AccessSettings
from streaming.environment import Environment
from streaming.errors import SettingsError

KEY = "k" * 44
AT = "https://x.service.signalr.net"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (f"Endpoint={AT};AccessKey={KEY};Version=1.0;", SignalRAddress(AT, KEY)),
        (f"Endpoint={AT}/;AccessKey={KEY}==;ServiceMode=Serverless;", SignalRAddress(AT, f"{KEY}==")),
        (
            f"endpoint=http://localhost;port=8888;accesskey={KEY}",
            SignalRAddress("http://localhost:8888", KEY),
        ),
        (
            f"Endpoint={AT};AccessKey={KEY};ClientEndpoint=https://gateway.example",
            SignalRAddress(AT, KEY, client_endpoint="https://gateway.example"),
        ),
        (
            f"Endpoint={AT};AuthType=azure.msi;Version=1.0;",
            SignalRAddress(AT, entra=EntraSignIn(managed_identity=True)),
        ),
        (
            f"Endpoint={AT};AuthType=azure.msi;ClientId=c;",
            SignalRAddress(AT, entra=EntraSignIn(managed_identity=True, client_id="c")),
        ),
        (f"Endpoint={AT};AuthType=azure;", SignalRAddress(AT, entra=EntraSignIn())),
        (
            f"Endpoint={AT};AuthType=azure.app;ClientId=c;TenantId=t;ClientSecret=s;",
            SignalRAddress(AT, entra=EntraSignIn(client_id="c", tenant_id="t", client_secret="s")),
        ),
    ],
)
def test_connection_strings(text: str, address: SignalRAddress) -> None:
    """Each form of a connection string says where the service is and how to sign in."""
    assert parse_connection_string(text) == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "no Endpoint=http(s)://"),
        (f"Endpoint=ftp://x;AccessKey={KEY}", "no Endpoint=http(s)://"),
        (f"Endpoint=https://[x;AccessKey={KEY}", "not a URL"),
        (f"Endpoint={AT};Port=lots;AccessKey={KEY}", "got 'lots'"),
        (f"Endpoint={AT}", "no AccessKey"),
        (f"Endpoint={AT};AccessKey=hunter2", "an AccessKey of 7 characters"),
        (f"Endpoint={AT};AccessKey={KEY};Version=2.0", "got Version=2.0"),
        (f"Endpoint={AT};AuthType=ntlm", "got AuthType=ntlm"),
        (f"Endpoint={AT};AuthType=azure.app;ClientId=c", "not all of ClientId, TenantId"),
    ],
)
def test_connection_strings_that_can_not_be_used(text: str, problem: str) -> None:
    """One that can't be used is refused with the setting's name and the problem, and no secret."""
    with pytest.raises(SettingsError) as refused:
        SignalRSettings.read(Environment({"AZURE_SIGNALR_CONNECTION_STRING": text}))
    assert refused.value.message.startswith("AZURE_SIGNALR_CONNECTION_STRING: ")
    assert problem in refused.value.message
    assert "hunter2" not in refused.value.message
    assert KEY not in refused.value.message


def test_the_published_names() -> None:
    """The settings of the published sample work unchanged."""
    settings = SignalRSettings.read(
        Environment(
            {
                "AzureSignalRConnectionString": f"Endpoint={AT};AccessKey={KEY};",
                "SIGNALR_HUB_NAME": "trips",
                "SIGNALR_TOKEN_TTL_MINUTES": "5",
            }
        )
    )
    assert settings == SignalRSettings(SignalRAddress(AT, KEY), "trips", timedelta(minutes=5))
    assert SignalRSettings.read(Environment({})) == SignalRSettings(hub="travel")
    with pytest.raises(SettingsError, match="SIGNALR_HUB_NAME: got '7up'"):
        SignalRSettings.read(Environment({"SIGNALR_HUB_NAME": "7up"}))


def test_secrets_are_not_shown() -> None:
    """Neither a key nor a client's secret shows up where settings are printed."""
    shown = repr(parse_connection_string(f"Endpoint={AT};AccessKey={KEY};"))
    shown += repr(
        parse_connection_string(f"Endpoint={AT};AuthType=azure.app;ClientId=c;TenantId=t;ClientSecret={KEY}")
    )
    assert KEY not in shown


def test_entra_id_needs_secrets_of_our_own() -> None:
    """Without an access key there is nothing to sign join tokens with but the host's own secrets."""

    def nothing() -> None:
        raise AssertionError("nothing is connected yet")

    settings = SignalRSettings().at(f"Endpoint={AT};AuthType=azure.msi;")
    with pytest.raises(SettingsError, match="STREAM_TOKEN_SECRETS"):
        create_push(settings, AccessSettings(), reader=nothing, connect=nothing)  # type: ignore[arg-type]
    access = AccessSettings(token_secrets=("s" * 32,))
    assert create_push(settings, access, reader=nothing, connect=nothing).callback  # type: ignore[arg-type]
