"""Who is connected: users without a name, each known by a signed token that only it has."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import jwt

from streaming.access_settings import AccessSettings
from streaming.errors import TokenExpired
from streaming.http.access import ALGORITHM
from streaming.http.messages import HttpRequest
from streaming.identifiers import new_id

#: Where a request carries it; or as ``Authorization: Bearer``, as the vendor's clients do.
USER_HEADER: Final = "x-user-token"
_BEARER: Final = "bearer "
#: Whom user tokens are for: a stream token is none, and the other way round.
_AUDIENCE: Final = "agent-signalr-user"
#: Characters of a token that is looked at. Ours have some 250.
_MAX_LENGTH: Final = 1_024


@dataclass(frozen=True, slots=True)
class Users:
    """Makes users, and knows them again."""

    #: With secrets, also where the host has set none.
    settings: AccessSettings

    def of(self, request: HttpRequest) -> str | None:
        """The user whose token the request carries; ``None``: it carries none of ours.

        Raises:
            TokenExpired: it carries one of ours that has expired.
        """
        authorization = request.headers.get("authorization", "")
        bearer = authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else ""
        for token in (request.headers.get(USER_HEADER, ""), bearer.strip()):
            if 0 < len(token) <= _MAX_LENGTH and token.isascii():
                user = self._subject(token)
                if user is not None:
                    return user
        return None

    @staticmethod
    def new() -> str:
        """A user that there has not been: nobody can guess its id."""
        return new_id()

    def token(self, user_id: str) -> tuple[str, datetime]:
        """What this user is known by, and until when."""
        now = int(time.time())
        expires = now + int(self.settings.token_ttl.total_seconds())
        claims: dict[str, Any] = {"aud": _AUDIENCE, "sub": user_id, "iat": now, "exp": expires}
        value = jwt.encode(claims, self.settings.token_secrets[0], algorithm=ALGORITHM)
        return value, datetime.fromtimestamp(expires, UTC)

    def _subject(self, token: str) -> str | None:
        for secret in self.settings.token_secrets:
            try:
                claims = jwt.decode(
                    token,
                    secret,
                    algorithms=[ALGORITHM],
                    audience=_AUDIENCE,
                    options={"require": ["aud", "sub", "iat", "exp"], "verify_iat": False},
                )
            except jwt.ExpiredSignatureError:
                message = "The user token has expired. Negotiate without one, and join again."
                raise TokenExpired(message, challenge='Bearer realm="user", error="invalid_token"') from None
            except jwt.InvalidTokenError:
                continue
            return str(claims["sub"])
        return None
