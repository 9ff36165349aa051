"""Redis that is away is told once: ``streaming.outage``."""

from __future__ import annotations

import logging

import pytest

from streaming.outage import Outage


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(clock)


def test_one_line_away_and_one_line_back(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """However many meet it: two lines, with how long it was and how often something failed."""
    for _ in range(1_000):
        outage.failed("append", ConnectionError("secret"))
        clock.now += 0.01
    states = [outage.is_on]
    outage.ended()
    outage.ended()
    states.append(outage.is_on)
    assert states == [True, False]
    assert caplog.messages == [
        "redis away, retrying: at=append error=ConnectionError",
        "redis back: away_seconds=10.0 failures=1000",
    ]


def test_stragglers_are_not_an_outage(outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """What was sent before Redis came back may fail after it: nothing is said of that."""
    outage.failed("append", ConnectionError())
    outage.ended()
    clock.now += 1
    outage.failed("read", TimeoutError())
    outage.ended()
    assert len(caplog.messages) == 2


def test_one_that_follows_at_once_is_told_late(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage right after another is told as soon as it can't be a straggler any more."""
    outage.failed("append", ConnectionError())
    outage.ended()
    clock.now += 1
    outage.failed("read", TimeoutError())
    clock.now += 5
    outage.failed("read", TimeoutError())
    outage.ended()
    assert caplog.messages[2:] == [
        "redis away, retrying: at=read error=TimeoutError",
        "redis back: away_seconds=5.0 failures=2",
    ]


def test_what_did_not_fail_says_nothing(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    """A success without a failure before is no news."""
    outage.ended()
    assert caplog.messages == []
