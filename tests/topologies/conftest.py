"""Topologies for the tests that break them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.topologies.servers import Cluster, SentinelGroup, running, valkey


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters with a replica each."""
    with running(Cluster(valkey(), tmp_path_factory.mktemp("cluster"))) as started:
        yield started


@pytest.fixture(scope="module")
def sentinel_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    """A master, two replicas, three sentinels."""
    with running(SentinelGroup(valkey(), tmp_path_factory.mktemp("sentinel"))) as started:
        yield started


@pytest.fixture(params=["cluster", "sentinel_group"], ids=["cluster", "sentinel"])
def started(request: pytest.FixtureRequest) -> Cluster | SentinelGroup:
    """Each topology that has a failover."""
    found: Cluster | SentinelGroup = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def topology(started: Cluster | SentinelGroup) -> AsyncIterator[Cluster | SentinelGroup]:
    """Each topology that has a failover, whole at the start of each test."""
    yield started
    await started.restore()
