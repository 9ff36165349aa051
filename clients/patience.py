"""How long a client waits: before it comes back, for a sign of life, and in all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from clients.errors import InvalidOption, Unreachable

#: Doubling stops here: 2**20 times any delay is above every limit, and no float overflows.
_MOST_DOUBLINGS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The waiting times of a client. The defaults suit a service behind the usual proxies."""

    #: The first pause before coming back is a random part of this. A stream's ``retry`` takes its place.
    first_delay: timedelta = timedelta(milliseconds=500)
    #: Pauses double up to this. A service that names a time (``Retry-After``) is given that time.
    longest_delay: timedelta = timedelta(seconds=30)
    #: A connection that is silent for so long is dead: three heartbeats of the service are missing.
    stall_after: timedelta = timedelta(seconds=45)
    #: Without an event or a heartbeat for so long, the client gives up.
    give_up_after: timedelta = timedelta(minutes=2)
    #: For a connection, TLS included. A host that does not answer by then is away.
    connect_timeout: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InvalidOption: a time is negative, or one that must be above zero is not.
        """
        for name in ("first_delay", "longest_delay"):
            if getattr(self, name) < timedelta(0):
                raise InvalidOption(name, f"got {getattr(self, name)}, expected a time that is not negative.")
        for name in ("stall_after", "give_up_after", "connect_timeout"):
            if getattr(self, name) <= timedelta(0):
                raise InvalidOption(name, f"got {getattr(self, name)}, expected a time above zero.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """What a client tells before it waits and comes back."""

    #: Why, in words for people.
    reason: str
    #: How often in a row nothing new came.
    attempt: int
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a request has to be sent again."""

    reason: str
    #: What the service asked for. A client may come later, not sooner.
    at_least: timedelta = timedelta(0)


class Retrying:
    """Counts the attempts of one call that brought nothing, and says how long to wait before the next."""

    def __init__(self, patience: Patience, now: Callable[[], float]) -> None:
        """``now`` is a clock that never goes back, in seconds."""
        self._patience = patience
        self._now = now
        self._attempts = 0
        self._progress_at = now()
        #: What the service asked for with ``retry``; it takes the place of ``first_delay``.
        self.reconnection_time: timedelta | None = None

    def progress(self) -> None:
        """Something came: start counting anew."""
        self._attempts = 0
        self._progress_at = self._now()

    def check(self, reason: str, cursor: str | None = None) -> None:
        """See whether to go on.

        Raises:
            Unreachable: nothing came for longer than the patience lasts.
        """
        if self._left <= 0:
            waited = timedelta(seconds=self._now() - self._progress_at)
            raise Unreachable(reason, after=waited, cursor=cursor)

    def next(self, trouble: Trouble, cursor: str | None = None) -> Reconnect:
        """Say how long to wait: a random part of an ever longer time, after what the service asked for.

        Raises:
            Unreachable: nothing came for longer than the patience lasts.
        """
        self.check(trouble.reason, cursor)
        patience = self._patience
        first = patience.first_delay if self.reconnection_time is None else self.reconnection_time
        longest = min(patience.longest_delay, first * 2 ** min(self._attempts, _MOST_DOUBLINGS))
        self._attempts += 1
        # Clients that were cut off together must not come back together: full jitter.
        jitter = random.uniform(0, longest.total_seconds())  # noqa: S311 - spreads load, guards nothing
        seconds = min(trouble.at_least.total_seconds() + jitter, self._left)
        return Reconnect(reason=trouble.reason, attempt=self._attempts, delay=timedelta(seconds=seconds))

    @property
    def _left(self) -> float:
        return self._progress_at + self._patience.give_up_after.total_seconds() - self._now()


def parse_retry_after(value: str | None) -> timedelta:
    """Read ``Retry-After``: seconds, or a date. What can't be read asks for nothing."""
    if value is None:
        return timedelta(0)
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 8:  # noqa: PLR2004 - above this, months
        return timedelta(seconds=int(text))
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return timedelta(0)
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(timedelta(0), date - datetime.now(UTC))
