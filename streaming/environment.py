"""Reads settings out of the environment: finds a value, parses it, names the setting that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, TypeVar

from streaming.errors import SettingsError

_T = TypeVar("_T")

#: Longer than any conversation is worth keeping: a year, in minutes.
MAX_MINUTES: Final = 366 * 24 * 60

_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")


class Environment:
    """Looks settings up and names the one that is wrong."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str | None:
        """The value of a setting; an empty one counts as unset."""
        return self._values.get(name, "").strip() or None

    def read(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """The parsed value of a setting that is set.

        Raises:
            SettingsError: ``parse`` raised a ``ValueError``; its words follow the setting's name.
        """
        value = self.get(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise SettingsError(name, str(error)) from None


def minutes(value: str) -> timedelta:
    """Read a number of minutes, above 0, at most a year."""
    return timedelta(minutes=positive_number(value, up_to=MAX_MINUTES, unit="minutes"))


def seconds(value: str) -> timedelta:
    """Read a number of seconds, above 0, at most a year."""
    return timedelta(seconds=positive_number(value, up_to=MAX_MINUTES * 60, unit="seconds"))


def positive_number(value: str, *, up_to: int, unit: str) -> float:
    """Read a number above 0, not necessarily a whole one."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number <= up_to:
        raise ValueError(f"got {value!r}, expected a number of {unit}, above 0, at most {up_to}.")
    return number


def positive_integer(value: str) -> int:
    """Read a whole number above 0."""
    if not (value.isascii() and value.isdigit() and int(value)):
        raise ValueError(f"got {value!r}, expected a whole number above 0.")
    return int(value)


def yes_or_no(value: str) -> bool:
    """Read a yes or no."""
    if value.lower() not in _TRUE + _FALSE:
        raise ValueError(f"got {value!r}, expected true or false.")
    return value.lower() in _TRUE


def parts_of(value: str) -> tuple[str, ...]:
    """Read a comma-separated list; empty parts don't count."""
    return tuple(part.strip() for part in value.split(",") if part.strip())
