"""Settings from the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from streaming.errors import SettingsError
from streaming.settings import (
    AzureOpenAISettings,
    DemoModelSettings,
    OpenAISettings,
    SchedulerSettings,
    Settings,
)


def test_without_settings_everything_is_embedded() -> None:
    """With an empty environment the service needs nothing from outside and listens on loopback."""
    settings = Settings.from_environment({})
    assert (settings.redis_url, settings.scheduler, settings.host) == (None, None, "127.0.0.1")
    assert settings.model == DemoModelSettings()
    assert settings == Settings()


def test_an_empty_value_counts_as_not_set() -> None:
    """Compose files and shells set what they don't know to nothing."""
    assert Settings.from_environment({"REDIS_CONNECTION_STRING": " ", "PORT": ""}) == Settings()


def test_each_setting_is_read() -> None:
    """Every documented name reaches its setting."""
    settings = Settings.from_environment(
        {
            "REDIS_CONNECTION_STRING": "rediss://user:pass@redis.example:6380/1",
            "REDIS_WAIT_REPLICAS": "1",
            "REDIS_STREAM_TTL_MINUTES": "2.5",
            "CONVERSATION_TTL_MINUTES": "1440",
            "HOST": "0.0.0.0",  # noqa: S104 - what a container sets
            "PORT": "8080",
            "DATA_DIR": "/data",
            "EMBEDDED_REDIS_PORT": "6390",
            "STREAM_APPEAR_TIMEOUT_SECONDS": "1",
            "RUN_WAIT_TIMEOUT_SECONDS": "9",
            "MAX_REQUEST_BYTES": "5",
            "LOG_LEVEL": "debug",
            "DEMO_MODEL_WORDS_PER_SECOND": "0",
        }
    )
    assert settings == Settings(
        redis_url="rediss://user:pass@redis.example:6380/1",
        wait_replicas=1,
        stream_ttl=timedelta(seconds=150),
        conversation_ttl=timedelta(days=1),
        host="0.0.0.0",  # noqa: S104 - see above
        port=8080,
        data_dir=Path("/data"),
        embedded_redis_port=6390,
        stream_appear_timeout=timedelta(seconds=1),
        run_wait_timeout=timedelta(seconds=9),
        max_request_bytes=5,
        log_level="DEBUG",
        model=DemoModelSettings(words_per_second=0),
    )


def test_the_scheduler_is_read_from_its_connection_string() -> None:
    """Endpoint, task hub and authentication come in any order and case."""
    value = "TaskHub=hub;endpoint=https://x.durabletask.io;Authentication=ManagedIdentity;ClientID=id"
    settings = Settings.from_environment({"DURABLE_TASK_SCHEDULER_CONNECTION_STRING": value})
    assert settings.scheduler == SchedulerSettings("https://x.durabletask.io", "hub", "managedidentity", "id")
    assert settings.scheduler.is_secure


def test_models() -> None:
    """Azure's endpoint chooses Azure OpenAI, else a key or a base URL any endpoint of its kind."""
    azure = {"AZURE_OPENAI_ENDPOINT": "https://a", "AZURE_OPENAI_CHAT_DEPLOYMENT_NAME": "d"}
    openai = {"OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}
    assert Settings.from_environment({**azure, **openai}).model == AzureOpenAISettings("https://a", "d")
    assert Settings.from_environment(openai).model == OpenAISettings("m", "k")
    local = {"OPENAI_BASE_URL": "http://localhost:11434/v1", "OPENAI_MODEL": "m"}
    assert Settings.from_environment(local).model == OpenAISettings(
        "m", "not-needed", "http://localhost:11434/v1"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_CONNECTION_STRING", "localhost:6379"),
        ("REDIS_CONNECTION_STRING", "redis://"),
        ("REDIS_CONNECTION_STRING", "redis://host:port"),
        ("REDIS_CONNECTION_STRING", "redis://[::1"),
        ("REDIS_CONNECTION_STRING", "unix://"),
        ("REDIS_WAIT_REPLICAS", "-1"),
        ("REDIS_STREAM_TTL_MINUTES", "ten"),
        ("REDIS_STREAM_TTL_MINUTES", "0"),
        ("REDIS_STREAM_TTL_MINUTES", "nan"),
        ("CONVERSATION_TTL_MINUTES", "0"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("MAX_REQUEST_BYTES", "1e3"),
        ("LOG_LEVEL", "LOUD"),
        ("DEMO_MODEL_WORDS_PER_SECOND", "-3"),
        ("OPENAI_BASE_URL", "localhost"),
        ("AZURE_OPENAI_ENDPOINT", "ftp://x"),
        ("DURABLE_TASK_SCHEDULER_CONNECTION_STRING", "Endpoint=x"),
        ("DURABLE_TASK_SCHEDULER_CONNECTION_STRING", "Endpoint=http://x"),
        ("DURABLE_TASK_SCHEDULER_CONNECTION_STRING", "Endpoint=http://x;TaskHub=h;Authentication=Magic"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    """A value that can't be used is an error that names the setting and what is expected."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    assert caught.value.message.startswith(f"{name}: ")
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({"AZURE_OPENAI_ENDPOINT": "https://a"}, "AZURE_OPENAI_CHAT_DEPLOYMENT_NAME"),
        ({"OPENAI_API_KEY": "k"}, "OPENAI_MODEL"),
        ({"OPENAI_MODEL": "m"}, "OPENAI_API_KEY"),
        ({"AZURE_OPENAI_CHAT_DEPLOYMENT_NAME": "d"}, "AZURE_OPENAI_ENDPOINT"),
    ],
)
def test_a_missing_half_is_named(environment: dict[str, str], missing: str) -> None:
    """A setting that needs another names the one that is missing."""
    with pytest.raises(SettingsError, match=missing):
        Settings.from_environment(environment)


def test_secrets_are_not_shown() -> None:
    """Neither an error nor the settings' own description repeats a password or a key."""
    keys = {"OPENAI_API_KEY": "sk-1", "OPENAI_MODEL": "m"}
    shown = repr(Settings.from_environment({"REDIS_CONNECTION_STRING": "redis://:hunter2@h", **keys}))
    assert "hunter2" not in shown
    assert "sk-1" not in shown
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"REDIS_CONNECTION_STRING": "http://:hunter2@h"})
    assert "hunter2" not in caught.value.message
