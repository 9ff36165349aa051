"""What the Functions platform allows, and our settings within it.

The platform ends a function that runs into its time limit without a word to anybody, and its worker process
with it: every run and stream in that process. So ours end before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from streaming.environment import Environment
from streaming.errors import SettingsError
from streaming.settings import Settings

#: The platform's front end cuts a response that has sent nothing for 230 s: what answers all at once has
#: to do so before.
LONGEST_SILENCE: Final = timedelta(seconds=200)

#: An app setting of this name overrides host.json's ``functionTimeout``.
TIMEOUT_SETTING: Final = "AzureFunctionsJobHost__functionTimeout"
#: The platform's own where nothing is said, on all plans but Consumption.
DEFAULT_TIMEOUT: Final = timedelta(minutes=30)
#: Of the limit, what a run leaves at most: for a model that takes its time to stop, and to save the turn.
RUN_MARGIN: Final = timedelta(minutes=5)
#: Of the limit, what a stream leaves at most: it ends between two entries or at a heartbeat.
STREAM_MARGIN: Final = timedelta(minutes=1)
#: Neither leaves more than this share of it.
MARGIN_SHARE: Final = 0.25

_FORM: Final = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})")


def function_timeout(host_json: Path, environment: Mapping[str, str]) -> timedelta | None:
    """How long the platform lets a function run; ``None``: for ever.

    Args:
        host_json: The app's host settings.
        environment: Its app settings.

    Raises:
        SettingsError: the limit is not one that the platform understands.
    """
    text = Environment(environment).get(TIMEOUT_SETTING)
    name = TIMEOUT_SETTING
    if text is None:
        settings: dict[str, Any] = json.loads(host_json.read_text(encoding="utf-8"))
        if "functionTimeout" not in settings:
            return DEFAULT_TIMEOUT
        text, name = str(settings["functionTimeout"]), "host.json: functionTimeout"
    if text == "-1":
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        raise SettingsError(name, f"expected hours:minutes:seconds such as 01:00:00, or -1, got {text!r}.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def within_platform(settings: Settings, timeout: timedelta | None) -> Settings:
    """The settings, with everything that would outlast the platform's patience cut to it."""
    settings = replace(settings, run_wait_timeout=min(settings.run_wait_timeout, LONGEST_SILENCE))
    if timeout is None:
        return settings
    limits = replace(
        settings.limits, stream_max=min(settings.limits.stream_max, timeout - _margin(timeout, STREAM_MARGIN))
    )
    run_timeout = min(settings.run_timeout, timeout - _margin(timeout, RUN_MARGIN))
    return replace(settings, run_timeout=run_timeout, limits=limits)


def _margin(timeout: timedelta, longest: timedelta) -> timedelta:
    return min(longest, timeout * MARGIN_SHARE)
