"""All routes that the hosts answer: those of the contract's core, and those of its bridges."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from bridges.audit_trail.audit_trail import create_audit_trail
from bridges.audit_trail.settings import AuditTrailSettings, StoreKind
from streaming.connections import connect
from streaming.http.routes import ROUTES, Route

#: Nothing connects: only the routes are taken.
_TRAIL: Final = create_audit_trail(
    AuditTrailSettings(store=StoreKind.MEMORY), lambda: connect("redis://localhost"), timedelta(hours=1)
)
ALL_ROUTES: Final[tuple[Route, ...]] = (*ROUTES, *_TRAIL.routes)
