"""The audit trail as a composition root takes it: a callback that observes, and routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from bridges.audit_trail.callback import ConversationAuditTrail
from bridges.audit_trail.endpoints import AuditTrailEndpoints
from bridges.audit_trail.memory_store import MemoryTrailStore
from bridges.audit_trail.redis_store import RedisTrailStore
from bridges.audit_trail.settings import AuditTrailSettings, StoreKind
from bridges.audit_trail.store import TrailStore
from streaming.http.routes import Route
from streaming.loop_local import LoopLocal


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """Its parts."""

    #: For the agents that ``AuditTrailSettings.observes``.
    callback: ConversationAuditTrail
    #: For the hosts, beside those of the contract.
    routes: tuple[Route, ...]


def create_audit_trail(
    settings: AuditTrailSettings, redis: Callable[[], Redis], run_timeout: timedelta
) -> AuditTrail:
    """Put the parts together.

    Args:
        settings: Where trails are kept, how many events and for how long.
        redis: Gives the running event loop's own client.
        run_timeout: How long a run may take.
    """
    store = _store(settings, redis, run_timeout)
    return AuditTrail(ConversationAuditTrail(store), AuditTrailEndpoints(store, settings).routes)


def _store(
    settings: AuditTrailSettings, redis: Callable[[], Redis], run_timeout: timedelta
) -> Callable[[], TrailStore]:
    if settings.store is StoreKind.MEMORY:
        in_memory = MemoryTrailStore(settings, run_timeout)
        return lambda: in_memory
    return LoopLocal(lambda: RedisTrailStore(redis(), settings, run_timeout)).get
