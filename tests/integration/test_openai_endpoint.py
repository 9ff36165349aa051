"""Configured models: the vendor's real client, over HTTP, against a local endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent_framework import AgentResponseUpdate
from agent_framework_openai import OpenAIChatCompletionClient
from azure.core.credentials import AccessTokenInfo
from azure.identity.aio import DefaultAzureCredential

from agents import create_travel_planner
from hosting.models import create_chat_client
from streaming.settings import AzureOpenAISettings, ModelSettings, OpenAISettings
from tests.openai_endpoint import ANSWER, DATE, DESTINATION, OpenAIEndpoint, openai_endpoint
from tools import get_local_events, get_weather_forecast

FORECAST = get_weather_forecast(DESTINATION, DATE)
EVENTS = get_local_events(DESTINATION, DATE)
#: Another program's settings, all of which would lead elsewhere.
FOREIGN_ENVIRONMENT = {
    "OPENAI_API_KEY": "foreign-key",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/foreign",
    "OPENAI_MODEL": "foreign-model",
    "OPENAI_CHAT_COMPLETION_MODEL": "foreign-model",
    "OPENAI_API_VERSION": "foreign-version",
    "OPENAI_ORG_ID": "foreign-organisation",
    "OPENAI_PROJECT_ID": "foreign-project",
    "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9/foreign",
    "AZURE_OPENAI_BASE_URL": "http://127.0.0.1:9/foreign",
    "AZURE_OPENAI_API_KEY": "foreign-key",
    "AZURE_OPENAI_AD_TOKEN": "foreign-token",
    "AZURE_OPENAI_API_VERSION": "foreign-version",
    "AZURE_OPENAI_MODEL": "foreign-model",
    "AZURE_OPENAI_CHAT_COMPLETION_MODEL": "foreign-model",
}


@pytest.fixture
async def endpoint() -> AsyncIterator[OpenAIEndpoint]:
    async with openai_endpoint() as endpoint:
        yield endpoint


def openai_settings(endpoint: OpenAIEndpoint) -> OpenAISettings:
    return OpenAISettings(model="the-model", api_key="the-key", base_url=f"{endpoint.url}/v1")


def azure_settings(endpoint: OpenAIEndpoint) -> AzureOpenAISettings:
    return AzureOpenAISettings(endpoint=endpoint.url, deployment="the-deployment", api_key="the-key")


@asynccontextmanager
async def chat_client(settings: ModelSettings) -> AsyncIterator[OpenAIChatCompletionClient]:
    client = create_chat_client(settings)
    assert isinstance(client, OpenAIChatCompletionClient)
    async with client.client:
        yield client


async def plan(settings: ModelSettings) -> list[AgentResponseUpdate]:
    async with chat_client(settings) as client:
        stream = create_travel_planner(client).run("Plan a trip", stream=True)
        return [update async for update in stream]


def text(updates: list[AgentResponseUpdate]) -> str:
    return "".join(update.text for update in updates)


async def test_a_plan_streams_from_an_openai_endpoint(endpoint: OpenAIEndpoint) -> None:
    """The planner has its tools run on the arguments that came in fragments, and streams the answer."""
    updates = await plan(openai_settings(endpoint))
    assert text(updates) == "".join(ANSWER) + FORECAST + EVENTS
    chunks = [update.text for update in updates if update.text]
    assert chunks == [*ANSWER, FORECAST, EVENTS]
    first, second = endpoint.requests
    assert first.tool_results == []
    assert second.tool_results == [FORECAST, EVENTS]


async def test_the_endpoint_receives_model_key_and_tools(endpoint: OpenAIEndpoint) -> None:
    """Requests go to the configured URL with the configured model and key, and offer both tools."""
    await plan(openai_settings(endpoint))
    request = endpoint.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer the-key"
    assert request.body["model"] == "the-model"
    assert request.body["stream"] is True
    offered = [tool["function"]["name"] for tool in request.body["tools"]]
    assert offered == ["get_weather_forecast", "get_local_events"]


async def test_usage_is_reported(endpoint: OpenAIEndpoint) -> None:
    """The usage chunk of each model call arrives as usage content."""
    updates = await plan(openai_settings(endpoint))
    usages = [content for update in updates for content in update.contents if content.type == "usage"]
    assert len(usages) == 2
    assert (usages[0].usage_details or {}).get("total_token_count") == 12


async def test_a_plan_streams_from_an_azure_endpoint(endpoint: OpenAIEndpoint) -> None:
    """Azure gets the deployment in the path, a version in the query, and the key in its own header only."""
    updates = await plan(azure_settings(endpoint))
    assert text(updates) == "".join(ANSWER) + FORECAST + EVENTS
    for request in endpoint.requests:
        assert request.path == "/openai/deployments/the-deployment/chat/completions"
        assert request.query == {"api-version": "2024-12-01-preview"}
        assert request.headers["api-key"] == "the-key"
        assert "authorization" not in request.headers


@pytest.mark.parametrize("suffix", ["/", "/openai/v1", "/openai/v1/"])
async def test_an_azure_endpoint_may_be_pasted_with_a_path(endpoint: OpenAIEndpoint, suffix: str) -> None:
    """The endpoint works with a slash or with the path that portals show behind it, and any version."""
    settings = AzureOpenAISettings(
        endpoint=endpoint.url + suffix, deployment="d", api_key="k", api_version="2099-01-01"
    )
    await plan(settings)
    assert endpoint.requests[0].path == "/openai/deployments/d/chat/completions"
    assert endpoint.requests[0].query == {"api-version": "2099-01-01"}


@pytest.mark.parametrize("source", ["environment", "dotenv"])
async def test_the_environment_does_not_lead_elsewhere(
    endpoint: OpenAIEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    """Where, as whom and to which model requests go is what the settings say, whatever else is set."""
    monkeypatch.chdir(tmp_path)
    if source == "environment":
        for name, value in FOREIGN_ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
    else:
        lines = [f"{name}={value}" for name, value in FOREIGN_ENVIRONMENT.items()]
        (tmp_path / ".env").write_text("\n".join(lines))
    await plan(azure_settings(endpoint))
    await plan(openai_settings(endpoint))
    azure, _, openai, _ = endpoint.requests
    assert azure.path == "/openai/deployments/the-deployment/chat/completions"
    assert azure.query == {"api-version": "2024-12-01-preview"}
    assert "foreign" not in repr(azure)
    assert (openai.path, openai.body["model"]) == ("/v1/chat/completions", "the-model")
    assert openai.headers["authorization"] == "Bearer the-key"


async def test_openai_itself_is_reached_unless_another_url_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a base URL in the settings the client goes to OpenAI, not to where the environment points."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/foreign")
    async with chat_client(OpenAISettings(model="m", api_key="k")) as client:
        assert str(client.client.base_url) == "https://api.openai.com/v1/"


async def test_azure_without_a_key_signs_in_by_entra_id(
    endpoint: OpenAIEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment without a key is called with Entra ID's token, and with no key from elsewhere."""
    scopes: list[str] = []

    async def get_token_info(_: DefaultAzureCredential, *asked: str, **_options: object) -> AccessTokenInfo:
        scopes.extend(asked)
        return AccessTokenInfo("the-token", expires_on=2**40)

    monkeypatch.setattr(DefaultAzureCredential, "get_token_info", get_token_info)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "foreign-key")
    await plan(AzureOpenAISettings(endpoint=endpoint.url, deployment="the-deployment"))
    for request in endpoint.requests:
        assert request.headers["authorization"] == "Bearer the-token"
        assert "foreign-key" not in repr(request)
    assert set(scopes) == {"https://cognitiveservices.azure.com/.default"}
