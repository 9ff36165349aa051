"""A function app on the platform's own worker code; what stands around it is in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from hosting.embedded.redis_server import EmbeddedRedis
from tests.functions_host import is_installed
from tests.functions_host.host import (
    TIMEOUT_SETTING,
    Deployment,
    FunctionsHost,
    functions_host,
    worker_environment,
)
from tests.service import FAST, PATIENCE, ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what can't run, and say so."""
    if not is_installed():
        reason = pytest.mark.skip(reason="azure-functions-runtime is missing: make test installs it")
        for item in items:
            if "tests/functions/" in item.path.as_posix():
                item.add_marker(reason)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A served function app and a client of it."""

    host: FunctionsHost
    http: httpx.AsyncClient
    log_path: Path

    @property
    def log(self) -> str:
        """What its workers have said."""
        return self.log_path.read_text(encoding="utf-8")


class Deploy(Protocol):
    """Serves the function app while the context lasts."""

    def __call__(
        self,
        *,
        folder: Path = ROOT,
        key: str = "",
        hide: Sequence[str] = (),
        function_timeout: str = "",
        **settings: str,
    ) -> AbstractAsyncContextManager[Deployed]:
        """Serve it.

        Args:
            folder: The app's.
            key: The master key; empty: no keys are asked for.
            hide: Modules that are not installed, as far as the app is concerned.
            function_timeout: In place of host.json's.
            settings: App settings.
        """


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for all apps of a module."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def deploy(redis_url: str, tmp_path: Path) -> Deploy:
    """Serves the app with the demo model as fast as it can, unless told otherwise."""

    @asynccontextmanager
    async def deploy(
        *,
        folder: Path = ROOT,
        key: str = "",
        hide: Sequence[str] = (),
        function_timeout: str = "",
        **settings: str,
    ) -> AsyncIterator[Deployed]:
        defaults = {"REDIS_CONNECTION_STRING": redis_url, "DEMO_MODEL_WORDS_PER_SECOND": FAST}
        if function_timeout:
            defaults[TIMEOUT_SETTING] = function_timeout
        environment = worker_environment(**{**defaults, **settings})
        log_path = tmp_path / "worker.log"
        with log_path.open("ab") as log:
            async with (
                functions_host(Deployment(folder, environment, key=key, hide=hide), log) as host,
                httpx.AsyncClient(base_url=host.url, timeout=PATIENCE, trust_env=False) as http,
            ):
                yield Deployed(host, http, log_path)

    return deploy


@pytest.fixture
async def app(deploy: Deploy) -> AsyncIterator[Deployed]:
    """The app as it is."""
    async with deploy() as deployed:
        yield deployed
