"""Settings of access and limits, from the environment: docs/security.md."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from streaming.access_settings import AccessSettings, LimitSettings
from streaming.errors import SettingsError
from streaming.settings import Settings
from tests.service import ROOT

KEYS = ("a-key-of-16-chars", "another/key+with==")
SECRETS = ("s" * 32, "t" * 40)


def test_by_default_nothing_is_asked_for() -> None:
    """With an empty environment there are no keys, tokens or origins, and limits that few will meet."""
    settings = Settings.from_environment({})
    assert settings.access == AccessSettings()
    assert not settings.access.uses_tokens
    assert settings.limits == LimitSettings()


def test_each_setting_is_read() -> None:
    """Every documented name reaches its setting; blanks around the parts of a list don't count."""
    settings = Settings.from_environment(
        {
            "API_KEYS": f"{KEYS[0]}, {KEYS[1]},",
            "STREAM_TOKEN_SECRETS": ",".join(SECRETS),
            "STREAM_TOKEN_TTL_MINUTES": "5",
            "HEALTH_ANONYMOUS": "No",
            "CORS_ALLOWED_ORIGINS": "https://App.example.com, http://localhost:3000",
            "TRUSTED_PROXIES": "10.0.0.7,10.1.0.0/16,fd00::/8",
            "MAX_STREAMS": "1",
            "MAX_STREAMS_PER_CLIENT": "2",
            "MAX_RUNS": "3",
            "MAX_HEADER_BYTES": "4096",
            "STREAM_MAX_MINUTES": "5",
            "STREAM_IDLE_MINUTES": "0.5",
        }
    )
    assert settings.access == AccessSettings(
        api_keys=KEYS,
        token_secrets=SECRETS,
        token_ttl=timedelta(minutes=5),
        health_anonymous=False,
        cors_origins=("https://app.example.com", "http://localhost:3000"),
        trusted_proxies=("10.0.0.7", "10.1.0.0/16", "fd00::/8"),
    )
    assert settings.limits == LimitSettings(
        max_streams=1,
        max_streams_per_client=2,
        max_runs=3,
        max_header_bytes=4_096,
        stream_max=timedelta(minutes=5),
        stream_idle=timedelta(seconds=30),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEYS", "short"),
        ("API_KEYS", ","),
        ("API_KEYS", "with a blank in it, yes"),
        ("API_KEYS", "nön-ascii-but-long-enough"),
        ("STREAM_TOKEN_SECRETS", "s" * 31),
        ("STREAM_TOKEN_TTL_MINUTES", "0"),
        ("HEALTH_ANONYMOUS", "maybe"),
        ("CORS_ALLOWED_ORIGINS", "app.example.com"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com/"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com/path"),
        ("CORS_ALLOWED_ORIGINS", "https://*.example.com"),
        ("CORS_ALLOWED_ORIGINS", "https://user@example.com"),
        ("CORS_ALLOWED_ORIGINS", "https://[::1"),
        ("CORS_ALLOWED_ORIGINS", "null"),
        ("TRUSTED_PROXIES", "proxy"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("METRICS_ANONYMOUS", "maybe"),
        ("MAX_STREAMS", "0"),
        ("MAX_RUNS", "many"),
        ("MAX_HEADER_BYTES", "100"),
        ("STREAM_MAX_MINUTES", "-1"),
        ("STREAM_IDLE_MINUTES", "never"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    """A value that can't be used is an error that names the setting, is a sentence, and tells no secret."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    assert re.fullmatch(rf"{name}: .*\.", caught.value.message)
    if name in ("API_KEYS", "STREAM_TOKEN_SECRETS"):
        assert not any(part in caught.value.message for part in value.split(",") if part)


def test_secrets_are_not_shown() -> None:
    """The settings' own description repeats no key and no secret."""
    shown = repr(Settings.from_environment({"API_KEYS": KEYS[0], "STREAM_TOKEN_SECRETS": SECRETS[0]}))
    assert KEYS[0] not in shown
    assert SECRETS[0] not in shown


def test_the_documented_defaults_are_the_defaults() -> None:
    """The table of docs/security.md says what holds when nothing is set."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \|", text, re.MULTILINE))
    access, limits = AccessSettings(), LimitSettings()
    minute = timedelta(minutes=1)
    assert table == {
        "STREAM_TOKEN_TTL_MINUTES": str(access.token_ttl // minute),
        "METRICS_ANONYMOUS": str(access.metrics_anonymous).lower(),
        "MAX_STREAMS": str(limits.max_streams),
        "MAX_RUNS": str(limits.max_runs),
        "STREAM_MAX_MINUTES": str(limits.stream_max // minute),
        "STREAM_IDLE_MINUTES": str(limits.stream_idle // minute),
        "MAX_REQUEST_BYTES": str(Settings().max_request_bytes),
        "MAX_HEADER_BYTES": str(limits.max_header_bytes),
    }
