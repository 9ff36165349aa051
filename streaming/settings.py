"""Settings: the environment, read once at the edge and passed in from there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from streaming.access_settings import AccessSettings, LimitSettings
from streaming.environment import (
    Environment,
    minutes,
    positive_integer,
    positive_number,
    seconds,
    yes_or_no,
)
from streaming.errors import SettingsError
from streaming.redis_address import parse_redis_address

#: The longest run, unless it is set: agents take seconds to hours, but one that hangs is to end on the day.
RUN_TIMEOUT: Final = timedelta(hours=2)

#: A scheduler connection string's authentications that need no more settings.
_SCHEDULER_AUTHENTICATIONS: Final = ("none", "managedidentity", "defaultazure")
_MAX_PORT: Final = 65_535
#: More processes than that only cost memory: it is more than processors have cores.
_MAX_WORKERS: Final = 64
#: A model's settings that mean nothing without another.
_HALVES: Final = {
    "AZURE_OPENAI_CHAT_DEPLOYMENT_NAME": "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_API_KEY": "AZURE_OPENAI_ENDPOINT",
    "OPENAI_MODEL": "OPENAI_API_KEY (or OPENAI_BASE_URL)",
}


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Where the Durable Task Scheduler is."""

    endpoint: str
    task_hub: str
    authentication: str
    #: For a user-assigned managed identity.
    client_id: str | None = None

    @property
    def is_secure(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return self.endpoint.startswith("https://")


@dataclass(frozen=True, slots=True)
class AzureOpenAISettings:
    """An Azure OpenAI deployment. Without a key, Entra ID signs in."""

    endpoint: str
    deployment: str
    api_key: str | None = field(default=None, repr=False)
    api_version: str | None = None


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """OpenAI, or any endpoint that speaks its Chat Completions API."""

    model: str
    api_key: str = field(repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class DemoModelSettings:
    """The offline demo model."""

    #: The pace at which it writes; 0 writes as fast as it can.
    words_per_second: float = 25.0


ModelSettings = AzureOpenAISettings | OpenAISettings | DemoModelSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Each default serves a newcomer on one machine."""

    #: ``None``: start an embedded server.
    redis_url: str | None = field(default=None, repr=False)
    #: An append counts only when so many replicas of the Redis master have it.
    wait_replicas: int = 0
    stream_ttl: timedelta = timedelta(minutes=10)
    #: How long the embedded task hub remembers a conversation after its last turn. Far longer than a stream:
    #: people come back to a conversation.
    conversation_ttl: timedelta = timedelta(days=30)
    #: ``None``: run an embedded task hub.
    scheduler: SchedulerSettings | None = None
    model: ModelSettings = field(default_factory=DemoModelSettings)
    host: str = "127.0.0.1"
    port: int = 7071
    #: Processes that serve on the port; one of them executes the agents.
    workers: int = 1
    #: Where the embedded server keeps its data.
    data_dir: Path = Path(".data")
    #: 0: any free port.
    embedded_redis_port: int = 0
    #: How long a stream route waits for a conversation that is not there yet.
    #: Longer than it takes until a run in progress that Redis has forgotten is made known again.
    stream_appear_timeout: timedelta = timedelta(seconds=3)
    #: How long a waiting ``run`` waits for its answer.
    run_wait_timeout: timedelta = timedelta(minutes=5)
    #: How long a run may take.
    run_timeout: timedelta = RUN_TIMEOUT
    max_request_bytes: int = 1_048_576
    log_level: str = "INFO"
    #: Whether developers may look inside with a browser: docs/inspect.md.
    inspect_page: bool = False
    #: ``text`` for people, ``json`` for programs.
    log_format: str = "text"
    access: AccessSettings = field(default_factory=AccessSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: a value can't be used; its message names the setting, the value and the remedy.
        """
        env = Environment(os.environ if environment is None else environment)
        read: dict[str, object] = {
            "redis_url": env.read("REDIS_CONNECTION_STRING", _redis_url),
            "wait_replicas": env.read("REDIS_WAIT_REPLICAS", _replicas),
            "stream_ttl": env.read("REDIS_STREAM_TTL_MINUTES", minutes),
            "conversation_ttl": env.read("CONVERSATION_TTL_MINUTES", minutes),
            "scheduler": env.read("DURABLE_TASK_SCHEDULER_CONNECTION_STRING", _scheduler),
            "model": _model(env),
            "host": env.get("HOST"),
            "port": env.read("PORT", _port),
            "workers": env.read("WORKERS", _workers),
            "data_dir": env.read("DATA_DIR", Path),
            "embedded_redis_port": env.read("EMBEDDED_REDIS_PORT", _port),
            "stream_appear_timeout": env.read("STREAM_APPEAR_TIMEOUT_SECONDS", seconds),
            "run_wait_timeout": env.read("RUN_WAIT_TIMEOUT_SECONDS", seconds),
            "run_timeout": env.read("RUN_TIMEOUT_MINUTES", minutes),
            "max_request_bytes": env.read("MAX_REQUEST_BYTES", positive_integer),
            "log_level": env.read("LOG_LEVEL", _log_level),
            "inspect_page": env.read("INSPECT_PAGE", yes_or_no),
            "log_format": env.read("LOG_FORMAT", _log_format),
            "access": AccessSettings.read(env),
            "limits": LimitSettings.read(env),
        }
        given: dict[str, Any] = {name: value for name, value in read.items() if value is not None}
        return cls(**given)


def _workers(value: str) -> int:
    count = positive_integer(value)
    if count > _MAX_WORKERS:
        raise ValueError(f"got {value!r}, expected at most {_MAX_WORKERS}: as many as there are processors.")
    if count > 1 and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError(f"got {value!r}, but processes can't share a port on this system: leave it at 1.")
    return count


def _model(env: Environment) -> ModelSettings:
    endpoint = env.read("AZURE_OPENAI_ENDPOINT", _http_url)
    if endpoint is not None:
        deployment = env.get("AZURE_OPENAI_CHAT_DEPLOYMENT_NAME")
        if deployment is None:
            raise SettingsError(
                "AZURE_OPENAI_CHAT_DEPLOYMENT_NAME",
                "not set, but AZURE_OPENAI_ENDPOINT is: name the deployment to use.",
            )
        return AzureOpenAISettings(
            endpoint=endpoint,
            deployment=deployment,
            api_key=env.get("AZURE_OPENAI_API_KEY"),
            api_version=env.get("AZURE_OPENAI_API_VERSION"),
        )
    base_url = env.read("OPENAI_BASE_URL", _http_url)
    api_key = env.get("OPENAI_API_KEY")
    if api_key is None and base_url is None:
        for name, needs in _HALVES.items():
            if env.get(name) is not None:
                raise SettingsError(name, f"set, but {needs} is not: set both, or neither.")
        pace = env.read("DEMO_MODEL_WORDS_PER_SECOND", _pace)
        return DemoModelSettings() if pace is None else DemoModelSettings(words_per_second=pace)
    model = env.get("OPENAI_MODEL")
    if model is None:
        raise SettingsError(
            "OPENAI_MODEL", "not set, but OPENAI_API_KEY or OPENAI_BASE_URL is: name the model to use."
        )
    # A local endpoint often wants no key, but the client library insists on one.
    return OpenAISettings(model=model, api_key=api_key or "not-needed", base_url=base_url)


def _redis_url(value: str) -> str:
    parse_redis_address(value)
    return value


def _replicas(value: str) -> int:
    return 0 if value == "0" else positive_integer(value)


def _split_url(value: str) -> SplitResult:
    try:
        return urlsplit(value)
    except ValueError:
        raise ValueError("not a URL.") from None


def _http_url(value: str) -> str:
    parts = _split_url(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"got {value!r}, expected an http:// or https:// URL.")
    return value


def _scheduler(value: str) -> SchedulerSettings:
    pairs = [pair.partition("=") for pair in value.split(";") if pair.strip()]
    parts = {name.strip().lower(): content.strip() for name, _, content in pairs}
    endpoint = parts.get("endpoint", "")
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError("no Endpoint=http(s)://…: expected Endpoint=…;TaskHub=…;Authentication=….")
    if not parts.get("taskhub"):
        raise ValueError("no TaskHub=…: expected Endpoint=…;TaskHub=…;Authentication=….")
    authentication = parts.get("authentication", "None")
    if authentication.lower() not in _SCHEDULER_AUTHENTICATIONS:
        raise ValueError(
            f"got Authentication={authentication}, expected None, ManagedIdentity or DefaultAzure."
        )
    return SchedulerSettings(
        endpoint=endpoint,
        task_hub=parts["taskhub"],
        authentication=authentication.lower(),
        client_id=parts.get("clientid"),
    )


def _pace(value: str) -> float:
    unit = "words per second (or 0, for no pauses)"
    return 0.0 if value == "0" else positive_number(value, up_to=1_000_000, unit=unit)


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= _MAX_PORT):
        raise ValueError(f"got {value!r}, expected a port from 1 to 65535.")
    return int(value)


def _log_format(value: str) -> str:
    if value.lower() not in ("text", "json"):
        raise ValueError(f"got {value!r}, expected text or json.")
    return value.lower()


def _log_level(value: str) -> str:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    if value.upper() not in levels:
        raise ValueError(f"got {value!r}, expected one of {', '.join(levels)}.")
    return value.upper()
