"""The template's settings sign in as its managed identity; a stand-in gives the tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from azure.identity import aio

from hosting.durable_agents import _credentials
from hosting.models import _entra_token_provider
from streaming.settings import AzureOpenAISettings, Settings
from tests.deployment.test_infrastructure import SAMPLES, settings_of_the_template
from tests.topologies.test_entra import HEADER, IdentityEndpoint, identity_endpoint

SCHEDULER = "https://durabletask.io"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityEndpoint]:
    """The endpoint, in an environment with the template's settings."""
    with identity_endpoint() as started:
        for name, value in settings_of_the_template().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("IDENTITY_ENDPOINT", started.url)
        monkeypatch.setenv("IDENTITY_HEADER", HEADER)
        yield started


def asked(endpoint: IdentityEndpoint) -> list[tuple[str, str]]:
    """For what, and as whom, tokens were asked for."""
    return [(query["resource"][0], query["client_id"][0]) for query in endpoint.queries]


async def test_the_scheduler_is_signed_in_to_as_the_identity(endpoint: IdentityEndpoint) -> None:
    """Worker and client ask for tokens of the identity that the connection string names."""
    scheduler = Settings.from_environment().scheduler
    assert scheduler is not None
    worker, client = _credentials(scheduler)
    assert (await asyncio.to_thread(worker.get_token, f"{SCHEDULER}/.default")).token == endpoint.tokens[0]
    async with client:
        assert (await client.get_token(f"{SCHEDULER}/.default")).token == endpoint.tokens[1]
    worker.close()
    assert asked(endpoint) == [(SCHEDULER, SAMPLES["identity.outputs.clientId"])] * 2


async def test_the_model_is_asked_as_the_identity(
    endpoint: IdentityEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, the model is asked with a token of the identity that AZURE_CLIENT_ID names."""
    model = Settings.from_environment().model
    assert isinstance(model, AzureOpenAISettings)
    assert model.api_key is None
    opened = []

    class Closed(aio.DefaultAzureCredential):
        """Remembers itself, so that the test can close it."""

        def __init__(self) -> None:
            super().__init__()
            opened.append(self)

    monkeypatch.setattr(aio, "DefaultAzureCredential", Closed)
    token = await _entra_token_provider()()
    for credential in opened:
        await credential.close()
    assert token in endpoint.tokens
    assert asked(endpoint) == [("https://cognitiveservices.azure.com", SAMPLES["identity.outputs.clientId"])]
