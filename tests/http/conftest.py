"""The HTTP contract is held by both hosts: every test here runs on each, unless marked ``standalone``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functions_host import PROGRAM as FUNCTIONS
from tests.functions_host import is_installed
from tests.service import SLOW, Service, running_service

STANDALONE = "standalone"
_FOLDER = "tests/http/"


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
def service(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service of each host for all tests that leave it as they found it. Its model writes fast."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    # Many tests ask for what is not there, and nothing here is flushed.
    with running_service(data_dir, program=program, STREAM_APPEAR_TIMEOUT_SECONDS="0.5") as running:
        yield running


@pytest.fixture(scope="session")
def slow_service(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose runs are in the middle of their answer for as long as a test lasts."""
    data_dir = tmp_path_factory.mktemp("slow-service") / "data"
    with running_service(data_dir, program=program, DEMO_MODEL_WORDS_PER_SECOND=SLOW) as running:
        yield running
