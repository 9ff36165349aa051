"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx
import hypothesis
import pytest
from playwright.async_api import Browser
from redis.asyncio import Redis

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from tests.browser import connected, running_chromium
from tests.service import SLOW, Service, connect_http, running_service

#: A machine that is busy with something else is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell's job in the background ignores Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Folders by how long their longest files take. A worker has a file to itself: the long ones begin first, so
#: that at the end none is left alone with one.
_LONG_FIRST: Final = (
    "chaos",
    "topologies",
    "clients",
    "chat",
    "integration",
    "functions",
    "telemetry",
    "signalr",
    "http",
    "vendor_streams",
    "benchmarks",
    "inspector",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders in this order; those that are not named come last."""
    places = {name: place for place, name in enumerate(_LONG_FIRST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it as they found it. Its model writes fast."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    # Many tests ask for what is not there, and nothing here is flushed.
    with running_service(data_dir, STREAM_APPEAR_TIMEOUT_SECONDS="0.5") as running:
        yield running


@pytest.fixture(scope="session")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose runs are in the middle of their answer for as long as a test lasts."""
    data_dir = tmp_path_factory.mktemp("slow-service") / "data"
    with running_service(data_dir, DEMO_MODEL_WORDS_PER_SECOND=SLOW) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``service``."""
    async with connect_http(service) as client:
        yield client


@pytest.fixture
async def slow_http(slow_service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``slow_service``."""
    async with connect_http(slow_service) as client:
        yield client


@pytest.fixture
async def service_redis(service: Service) -> AsyncIterator[Redis]:
    """The embedded Redis of ``service``, with replies as bytes."""
    async with Redis.from_url(service.redis_url) as client:
        yield client


@pytest.fixture
async def writer(service: Service) -> AsyncIterator[RedisStreamResponseHandler]:
    """The published handler, writing from this process into the streams of ``service``."""
    async with RedisStreamResponseHandler(connect(service.redis_url)) as handler:
        yield handler


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Chromium for all tests."""
    with running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A Chromium; its contexts are a test's own."""
    async with connected(chromium) as browser:
        yield browser
