"""Tokens: what lets an application use the REST interface, and a client connect."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import jwt

_ALGORITHM: Final = "HS256"
#: Clocks of one machine don't differ, so a token is void when it says so.
_LEEWAY: Final = timedelta(0)
#: The claims that name the user, newest first.
_USER_CLAIMS: Final = (
    "nameid",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
    "sub",
)


class TokenRefused(Exception):
    """A token is missing, expired, forged or for something else."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Checks and makes the tokens of one service."""

    access_key: str = field(repr=False)
    #: The service's address under each of its names.
    endpoints: tuple[str, ...]

    def check(self, token: str, *paths: str) -> dict[str, Any]:
        """The claims of a token that was made out to one of these paths.

        Raises:
            TokenRefused: it was not, or is not ours, or has expired.
        """
        audiences = [f"{endpoint}{path}" for endpoint in self.endpoints for path in paths]
        try:
            return jwt.decode(
                token,
                self.access_key,
                algorithms=[_ALGORITHM],
                audience=audiences,
                leeway=_LEEWAY,
                options={"require": ["aud", "exp"]},
            )
        except jwt.InvalidTokenError as error:
            raise TokenRefused(f"The token is refused: {type(error).__name__}.") from None

    def client_token(self, hub: str, user: str | None, life: timedelta) -> str:
        """What lets a client connect."""
        claims: dict[str, Any] = {"aud": f"{self.endpoints[0]}/client/?hub={hub}"}
        claims |= {"exp": int(time.time() + life.total_seconds())}
        claims |= {"nameid": user} if user else {}
        return jwt.encode(claims, self.access_key, algorithm=_ALGORITHM)


def client_paths(hub: str) -> Iterable[str]:
    """What a client's token may be made out to."""
    return f"/client/?hub={hub}", f"/client?hub={hub}"


def user_of(claims: dict[str, Any]) -> str:
    """The user; empty where a token names none."""
    named = (claims.get(name) for name in _USER_CLAIMS)
    return next((name for name in named if isinstance(name, str) and name), "")
