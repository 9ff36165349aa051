"""Push in the templates: off by itself, without keys, and as the service understands it."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from bridges.signalr.push import create_push
from bridges.signalr.service_client import _credential
from composition import BridgeSettings
from streaming.access_settings import AccessSettings
from streaming.errors import SettingsError
from streaming.settings import Settings
from tests.deployment.bicep import BicepFile, text
from tests.deployment.test_infrastructure import (
    INFRA,
    MAIN,
    SAMPLES,
    parameters_of,
    settings_of_the_template,
)
from tests.topologies.test_entra import HEADER, identity_endpoint

MODULE: Final = BicepFile(INFRA / "modules" / "signalr.bicep")
CLIENT_ID: Final = SAMPLES["identity.outputs.clientId"]
SIGNALR: Final = "https://signalr.azure.com"


def _nothing() -> Any:
    raise AssertionError("nothing is connected here")


def test_the_connection_string_is_the_modules() -> None:
    """The module puts out the connection string that the other tests read, of a serverless service."""
    known = {"signalr.properties.hostName": "signalr-x.service.signalr.net", "clientId": CLIENT_ID}
    [output] = [text(node) for name, node in MODULE.declarations("output") if name == "connectionString"]
    value = output.split("=", 1)[1].strip().strip("'")
    sample = re.sub(r"\$\{([\w.]+)\}", lambda found: known[found[1]], value)
    assert sample == SAMPLES["deploySignalR ? signalr!.outputs.connectionString : ''"]
    assert "{ flag: 'ServiceMode', value: 'Serverless' }" in text(MODULE.root)
    assert "disableLocalAuth: true" in text(MODULE.root)


def test_push_is_there_only_if_it_is_asked_for() -> None:
    """By itself nothing is deployed, and its setting is empty, which the service takes for not set."""
    assert parameters_of("main.parameters.json")["deploySignalR"] == "${DEPLOY_SIGNALR=false}"
    assert "module signalr 'modules/signalr.bicep' = if (deploySignalR)" in text(MAIN.root)
    values = settings_of_the_template() | {"AZURE_SIGNALR_CONNECTION_STRING": ""}
    assert BridgeSettings.from_environment(values).signalr.address is None


def test_push_comes_with_stream_tokens() -> None:
    """Both hosts are given the secret that push can't do without."""
    assert text(MAIN.variable("hasTokens")).endswith("= streamTokens || deploySignalR")
    assert text(MAIN.root).count("hasTokens ? secrets.outputs.streamTokenSecretUri : ''") == 2
    values = settings_of_the_template()
    signalr = BridgeSettings.from_environment(values).signalr
    with_secret = Settings.from_environment({**values, "STREAM_TOKEN_SECRETS": "s" * 32}).access
    assert create_push(signalr, with_secret, reader=_nothing, connect=_nothing).callback is not None
    with pytest.raises(SettingsError, match="STREAM_TOKEN_SECRETS"):
        create_push(signalr, AccessSettings(), reader=_nothing, connect=_nothing)


async def test_pushes_are_sent_as_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SignalR service is signed in to as the identity that the connection string names."""
    with identity_endpoint() as endpoint:
        monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url)
        monkeypatch.setenv("IDENTITY_HEADER", HEADER)
        address = BridgeSettings.from_environment(settings_of_the_template()).signalr.address
        assert address is not None
        assert address.entra is not None
        credential = _credential(address.entra)
        assert (await credential.get_token(f"{SIGNALR}/.default")).token == endpoint.tokens[0]
        await credential.close()
        [query] = endpoint.queries
    assert (query["resource"], query["client_id"]) == ([SIGNALR], [CLIENT_ID])
