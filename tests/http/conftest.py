"""The HTTP contract is held by both hosts: every test here runs on each, unless marked ``standalone``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from tests.functions_host import PROGRAM as FUNCTIONS
from tests.functions_host import is_installed
from tests.service import SLOW, Service, running_service

STANDALONE = "standalone"
_FOLDER = "tests/http/"


class Hosts(Protocol):
    """Services that run until the last test."""

    def __call__(self, program: str, name: str, **settings: str) -> Service:
        """The service of this name on a host; started at the first call."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is said of the standalone host alone, where the other one would be asked."""
    of_the_other = [item for item in items if _FOLDER in item.path.as_posix() and _is_left_out(item)]
    if of_the_other:
        config.hook.pytest_deselected(items=of_the_other)
        items[:] = [item for item in items if item not in of_the_other]


def _is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    is_functions = callspec is not None and callspec.params.get("program") == FUNCTIONS
    return is_functions and item.get_closest_marker(STANDALONE) is not None


@pytest.fixture(
    scope="session",
    params=[
        STANDALONE,
        pytest.param(
            FUNCTIONS,
            marks=pytest.mark.skipif(
                not is_installed(), reason="azure-functions-runtime is missing: make test installs it"
            ),
        ),
    ],
    ids=["standalone", "functions"],
)
def program(request: pytest.FixtureRequest) -> str:
    """The host's program: what ``python -m`` runs."""
    return str(request.param)


@pytest.fixture(scope="session")
def all_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """One service of each kind, once a test has asked for it: files take turns with the hosts."""
    started: dict[tuple[str, str], Service] = {}
    with ExitStack() as stack:

        def host(program: str, name: str, **settings: str) -> Service:
            if (program, name) not in started:
                running = running_service(tmp_path_factory.mktemp(name) / "data", program=program, **settings)
                started[program, name] = stack.enter_context(running)
            return started[program, name]

        yield host


@pytest.fixture(scope="module")
def service(program: str, all_hosts: Hosts) -> Service:
    """One service of each host for all tests that leave it as they found it. Its model writes fast."""
    # Many tests ask for what is not there, and nothing here is flushed.
    return all_hosts(program, "service", STREAM_APPEAR_TIMEOUT_SECONDS="0.5")


@pytest.fixture(scope="module")
def slow_service(program: str, all_hosts: Hosts) -> Service:
    """A service whose runs are in the middle of their answer for as long as a test lasts."""
    return all_hosts(program, "slow-service", DEMO_MODEL_WORDS_PER_SECOND=SLOW)
