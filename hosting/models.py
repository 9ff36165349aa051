"""From settings to the chat client of the model they name.

What the settings say is all that counts: the client libraries also read the environment, where another
program's ``OPENAI_BASE_URL`` or ``AZURE_OPENAI_BASE_URL`` would send the conversation and the key elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from streaming.settings import AzureOpenAISettings, DemoModelSettings, ModelSettings, OpenAISettings

if TYPE_CHECKING:
    from agent_framework import SupportsChatGetResponse
    from openai import AsyncAzureOpenAI

#: Named although it is the library's default too, because the library prefers the environment to its default.
_OPENAI_URL: Final = "https://api.openai.com/v1"
#: The oldest that streams usage counts and still serves every current model.
_AZURE_API_VERSION: Final = "2024-12-01-preview"
_AZURE_SCOPE: Final = "https://cognitiveservices.azure.com/.default"


def create_chat_client(model: ModelSettings) -> SupportsChatGetResponse[Any]:
    """Create the chat client for the model that the settings name.

    Only the chosen model's library is imported: OpenAI's takes longer than all the rest of the start-up.
    """
    match model:
        case DemoModelSettings():
            from hosting.demo.model import DemoChatClient  # noqa: PLC0415 - only what is used is imported

            return DemoChatClient(words_per_second=model.words_per_second)
        case OpenAISettings():
            return _openai(model)
        case AzureOpenAISettings():
            return _azure_openai(model)


def _openai(model: OpenAISettings) -> SupportsChatGetResponse[Any]:
    from agent_framework_openai import OpenAIChatCompletionClient  # noqa: PLC0415 - see above

    return OpenAIChatCompletionClient(
        model=model.model, api_key=model.api_key, base_url=model.base_url or _OPENAI_URL
    )


def _azure_openai(model: AzureOpenAISettings) -> SupportsChatGetResponse[Any]:
    from agent_framework_openai import OpenAIChatCompletionClient  # noqa: PLC0415 - see above

    # The vendor's client is built here: given only its arguments, the framework would look for more in the
    # environment, and refuse to start where AZURE_OPENAI_BASE_URL is set beside the endpoint.
    return OpenAIChatCompletionClient(
        model=model.deployment, azure_endpoint=model.endpoint, async_client=_azure_client(model)
    )


def _azure_client(model: AzureOpenAISettings) -> AsyncAzureOpenAI:
    from openai import AsyncAzureOpenAI  # noqa: PLC0415 - see above

    client = AsyncAzureOpenAI(
        # Portals show the endpoint with this path too; the deployment's own path goes in its place.
        azure_endpoint=model.endpoint.rstrip("/").removesuffix("/openai/v1"),
        azure_deployment=model.deployment,
        api_version=model.api_version or _AZURE_API_VERSION,
        api_key=model.api_key,
        azure_ad_token_provider=None if model.api_key else _entra_token_provider(),
    )
    # Read from the environment by the client, and no business of Azure's.
    client.organization = None
    client.project = None
    return client


def _entra_token_provider() -> Callable[[], Awaitable[str]]:
    from azure.identity.aio import (  # noqa: PLC0415 - only sign-in without a key needs it
        DefaultAzureCredential,
        get_bearer_token_provider,
    )

    return get_bearer_token_provider(DefaultAzureCredential(), _AZURE_SCOPE)
