"""The OpenAPI document: ``openapi.yaml``, and what is known only when the service runs."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # it has no types of its own

from streaming.access_settings import AccessSettings
from streaming.http.access import KEY_HEADER, KEY_PARAMETER, TOKEN_HEADER, TOKEN_PARAMETER, Needs

#: Read when the module is loaded: no request waits for a file.
_WRITTEN: Final[dict[str, Any]] = yaml.load(
    Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8"),
    # In C it takes 3 ms instead of 100; not every platform has it.
    Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # noqa: S506 - both are safe
)
#: What an operation says of ``Needs``; in what is served its ``security`` stands instead.
NEEDS: Final = "x-needs"

_KEYS: Final = {
    "key": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
    "keyInQuery": {"type": "apiKey", "in": "query", "name": KEY_PARAMETER},
}
_TOKENS: Final = {
    "token": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER},
    "tokenAsBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "tokenInQuery": {"type": "apiKey", "in": "query", "name": TOKEN_PARAMETER},
}


def openapi_document(access: AccessSettings, agents: Iterable[str]) -> dict[str, Any]:
    """The document of this service: its agents, and the security that is switched on."""
    document = copy.deepcopy(_WRITTEN)
    document["components"]["parameters"]["Agent"]["schema"]["enum"] = sorted(agents)
    schemes = {**(_KEYS if access.api_keys else {}), **(_TOKENS if access.uses_tokens else {})}
    if schemes:
        document["components"]["securitySchemes"] = schemes
    for path in document["paths"].values():
        for operation in path.values():
            if NEEDS in operation:
                operation["security"] = _security(Needs(operation.pop(NEEDS)), access)
    return document


def _security(needs: Needs, access: AccessSettings) -> list[dict[str, list[str]]]:
    """What opens an operation: any one of these. An empty one is nothing at all."""
    keys = list(_KEYS) if access.api_keys else []
    tokens = list(_TOKENS) if access.uses_tokens else []
    wanted = {
        Needs.NOTHING: [],
        Needs.HEALTH: keys if access.health_anonymous is False else [],
        Needs.METRICS: [] if access.metrics_anonymous else keys,
        Needs.KEY: keys,
        Needs.JOINING: keys + tokens,
        Needs.CONVERSATION: keys + tokens,
        Needs.MEMBER: keys + tokens,
    }[needs]
    ways: list[dict[str, list[str]]] = [{name: []} for name in wanted]
    if needs is Needs.JOINING and tokens and not keys:
        # A new conversation is anybody's to start.
        ways.append({})
    return ways
