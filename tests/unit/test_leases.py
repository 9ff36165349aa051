"""How the leases of many runs are renewed: the thread that does it shares a processor with the agents."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from streaming.store.run_store import RunStore
from streaming.writing import leases as leases_module
from streaming.writing.leases import AT_ONCE, LeaseKeeper
from streaming.writing.run_control import RunControl

RUNS = 3 * AT_ONCE + 1
BOUND = 10.0


def keeper_of_many() -> LeaseKeeper:
    """Keeps the leases of many runs."""
    keeper = LeaseKeeper(FakeAsyncRedis, timedelta(minutes=1))
    for number in range(RUNS):
        keeper.keep(f"c{number}", "r", agent="Agent")
    return keeper


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed often."""
    monkeypatch.setattr(leases_module, "RENEW_INTERVAL", timedelta(milliseconds=50))


def test_leases_are_renewed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lease is renewed, and never more than a few of them before others have their turn."""
    renewed: set[str] = set()
    at_once = most = 0
    all_renewed = threading.Event()

    def next_turn() -> None:
        nonlocal at_once
        at_once = 0

    def renew(_store: RunStore, conversation_id: str, _run: str, _attempt: int, take: Any) -> None:
        nonlocal at_once, most
        if at_once == 0:
            asyncio.get_running_loop().call_soon(next_turn)
        at_once += 1
        most = max(most, at_once)
        renewed.add(conversation_id)
        if len(renewed) == RUNS:
            all_renewed.set()
        take(ConnectionError())

    monkeypatch.setattr(RunStore, "send_renew", renew)
    keeper = keeper_of_many()
    assert all_renewed.wait(BOUND)
    keeper.close()
    assert most <= AT_ONCE


def test_what_appends_renew_is_not_renewed_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that writes costs no renewal; once it is silent for a while it is renewed again."""
    renewed: list[str] = []
    rounds = 0
    enough = threading.Event()

    def renew(_store: RunStore, conversation_id: str, _run: str, _attempt: int, take: Any) -> None:
        nonlocal rounds
        renewed.append(conversation_id)
        if conversation_id == "silent":
            rounds += 1
            writing.lease_renewed_at = time.monotonic() if rounds < 4 else -math.inf
        if conversation_id == "writing":
            enough.set()
        take(ConnectionError())

    async def control(conversation_id: str) -> RunControl:
        return RunControl(conversation_id, "r")

    monkeypatch.setattr(RunStore, "send_renew", renew)
    keeper = LeaseKeeper(FakeAsyncRedis, timedelta(minutes=1))
    writing = asyncio.run(control("writing"))
    writing.lease_renewed_at = time.monotonic()
    keeper.keep("silent", "r", agent="Agent")
    keeper.keep("writing", "r", agent="Agent", attempt=1, control=writing)
    assert enough.wait(BOUND)
    keeper.close()
    assert renewed.index("writing") >= 4


def test_no_lease_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis does not answer one renewal, the other leases are renewed."""
    times_hung = rounds = 0
    others_renewed = threading.Event()
    renewed: set[str] = set()

    def renew(_store: RunStore, conversation_id: str, _run: str, _attempt: int, take: Any) -> None:
        nonlocal times_hung, rounds
        if conversation_id == "c0":
            times_hung += 1
            return
        if times_hung:
            renewed.add(conversation_id)
            rounds += conversation_id == "c1"
            if len(renewed) == RUNS - 1 and rounds == 3:
                others_renewed.set()
        take(ConnectionError())

    monkeypatch.setattr(RunStore, "send_renew", renew)
    keeper = keeper_of_many()
    assert others_renewed.wait(BOUND)
    keeper.close()
    # It has been asked: nothing more is until it answers.
    assert times_hung == 1


def test_a_run_that_ends_before_its_turn_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that was let go in the middle of a round is not renewed in it."""
    last = f"c{RUNS - 1}"
    rounds = 0
    renewed_after_all = False
    keepers: list[LeaseKeeper] = []
    enough = threading.Event()

    def renew(_store: RunStore, conversation_id: str, _run: str, _attempt: int, take: Any) -> None:
        nonlocal rounds, renewed_after_all
        if conversation_id == "c0" and keepers:
            rounds += 1
            if rounds == 2:
                # This round has begun with all of them.
                keepers[0].release(last, "r")
            elif rounds == 3:
                enough.set()
        if conversation_id == last and rounds == 2:
            renewed_after_all = True
        take(ConnectionError())

    monkeypatch.setattr(RunStore, "send_renew", renew)
    keepers.append(keeper_of_many())
    assert enough.wait(BOUND)
    keepers[0].close()
    assert not renewed_after_all
