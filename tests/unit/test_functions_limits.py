"""Runs and streams end before the Functions platform ends them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from hosting.functions_limits import (
    DEFAULT_TIMEOUT,
    LONGEST_SILENCE,
    TIMEOUT_SETTING,
    function_timeout,
    within_platform,
)
from streaming.errors import SettingsError
from streaming.reading.reader import HEARTBEAT
from streaming.settings import Settings

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('"01:00:00"', HOUR),
        ('"00:05:30"', timedelta(minutes=5, seconds=30)),
        ('"1.02:00:00"', timedelta(hours=26)),
        ('"-1"', None),
        ("-1", None),
    ],
)
def test_the_limit_of_the_host_settings(tmp_path: Path, text: str, wanted: timedelta | None) -> None:
    """The platform's limit is read as the platform reads it."""
    host_json = tmp_path / "host.json"
    host_json.write_text(f'{{"functionTimeout": {text}}}', encoding="utf-8")
    assert function_timeout(host_json, {}) == wanted


def test_the_limit_where_nothing_is_said(tmp_path: Path) -> None:
    """Without a limit in host.json the platform has one of its own."""
    host_json = tmp_path / "host.json"
    host_json.write_text("{}", encoding="utf-8")
    assert function_timeout(host_json, {}) == DEFAULT_TIMEOUT


def test_an_app_setting_comes_first(tmp_path: Path) -> None:
    """An app setting overrides host.json, as on the platform."""
    host_json = tmp_path / "host.json"
    host_json.write_text('{"functionTimeout": "01:00:00"}', encoding="utf-8")
    assert function_timeout(host_json, {TIMEOUT_SETTING: "00:10:00"}) == timedelta(minutes=10)


@pytest.mark.parametrize("text", ["soon", "60", "1:2", "00:61"])
def test_a_limit_that_is_none(tmp_path: Path, text: str) -> None:
    """A limit that can't be meant stops the app from loading, with the setting's name and the value."""
    with pytest.raises(SettingsError, match=f"{TIMEOUT_SETTING}: expected .* got '{text}'"):
        function_timeout(tmp_path / "host.json", {TIMEOUT_SETTING: text})


@pytest.mark.parametrize("timeout", [timedelta(seconds=4), timedelta(minutes=10), HOUR, timedelta(hours=10)])
def test_what_the_platform_would_cut_ends_before(timeout: timedelta) -> None:
    """Waiting answers, runs and streams each end within the platform's limits, and are not cut to nothing."""
    ours = Settings()
    settings = within_platform(ours, timeout)
    assert settings.run_wait_timeout <= LONGEST_SILENCE
    assert min(timeout / 2, ours.run_timeout) <= settings.run_timeout < timeout
    assert min(timeout / 2, ours.limits.stream_max) <= settings.limits.stream_max < timeout


def test_shorter_settings_stay() -> None:
    """What is set shorter than the platform wants stays as it is set."""
    short = Settings(run_timeout=timedelta(seconds=3), run_wait_timeout=timedelta(seconds=2))
    settings = within_platform(short, HOUR)
    assert (settings.run_timeout, settings.run_wait_timeout) == (short.run_timeout, short.run_wait_timeout)
    assert within_platform(short, None).limits == short.limits


def test_heartbeats_come_before_the_idle_cut() -> None:
    """The platform's front end cuts a response after 230 silent seconds; heartbeats come well before."""
    assert timedelta(seconds=230) > HEARTBEAT * 3
