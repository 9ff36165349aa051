"""Who may do what: API keys for programs, signed stream tokens for those who read one conversation.

Both are off until they are set. A request is let in if any credential that it carries opens what it asks
for; what it asks for need not exist. Rules and reasons: docs/security.md.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import jwt

from streaming.access_settings import AccessSettings
from streaming.errors import Forbidden, TokenExpired, Unauthorized
from streaming.http.messages import HttpRequest

#: The Functions way of carrying a key: a header, or a query parameter.
KEY_HEADER: Final = "x-functions-key"
KEY_PARAMETER: Final = "code"
#: The query parameter is for ``EventSource``, which can't send headers.
TOKEN_HEADER: Final = "x-stream-token"  # noqa: S105 - a name, no secret
TOKEN_PARAMETER: Final = "token"  # noqa: S105 - a name, no secret
_BEARER: Final = "bearer "

#: The only algorithm that signs or verifies: what a token says of itself counts for nothing.
ALGORITHM: Final = "HS256"
#: Whom tokens are for: one that the same secret signed for something else is refused.
AUDIENCE: Final = "agent-stream"
#: Characters of a token that is looked at. Ours have some 300 with the longest conversation id.
_MAX_TOKEN_LENGTH: Final = 2_048


class Needs(Enum):
    """What a route wants of its client, where keys or tokens are set."""

    NOTHING = "nothing"
    #: A key, unless health is open to everybody.
    HEALTH = "health"
    KEY = "key"
    #: A key, unless metrics are open to everybody.
    METRICS = "metrics"
    #: A key, or any conversation's token: ``Access.check_joining`` looks at which one it has to be.
    JOINING = "joining"
    #: A key, or the token of the conversation in the path.
    CONVERSATION = "conversation"
    #: A key, or any conversation's token, wherever either is set: what it opens is looked at later.
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class StreamToken:
    """Lets its bearer read, ask about, continue and stop one conversation."""

    value: str
    expires_at: datetime

    @property
    def fields(self) -> dict[str, str]:
        """As fields of a JSON answer."""
        expires_at = self.expires_at.isoformat(timespec="seconds")
        return {"stream_token": self.value, "stream_token_expires_at": expires_at}

    @property
    def headers(self) -> dict[str, str]:
        """As headers of any answer."""
        return {TOKEN_HEADER: self.value, "cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class Access:
    """Lets requests in, or refuses them."""

    settings: AccessSettings

    def issue(self, conversation_id: str) -> StreamToken | None:
        """A token of a conversation, for a client that may use it; ``None`` where tokens are off."""
        if not self.settings.uses_tokens:
            return None
        now = int(time.time())
        expires = now + int(self.settings.token_ttl.total_seconds())
        claims: dict[str, Any] = {"aud": AUDIENCE, "sub": conversation_id, "iat": now, "exp": expires}
        value = jwt.encode(claims, self.settings.token_secrets[0], algorithm=ALGORITHM)
        return StreamToken(value, datetime.fromtimestamp(expires, UTC))

    def check(self, needs: Needs, request: HttpRequest) -> None:
        """Let a request in.

        Raises:
            Unauthorized: it carries no valid key or token; ``TokenExpired``: an expired token.
            Forbidden: its token is another conversation's.
        """
        if needs is Needs.CONVERSATION:
            self._check_conversation(request, request.path["conversation_id"])
        elif needs is Needs.JOINING:
            self._check_starting(request)
        elif needs is Needs.MEMBER:
            self._check_member(request)
        elif not self._is_open(needs):
            self._check_key(request)

    def _is_open(self, needs: Needs) -> bool:
        """Whether what needs a key by itself is open to everybody."""
        return {
            Needs.NOTHING: True,
            Needs.HEALTH: self.settings.health_anonymous is not False,
            Needs.METRICS: self.settings.metrics_anonymous,
        }.get(needs, False)

    def check_joining(self, request: HttpRequest, conversation_id: str | None) -> None:
        """Let a request start a run in this conversation (``None``: in a new one).

        Raises:
            Unauthorized: see ``check``.
            Forbidden: its token is another conversation's.
        """
        if conversation_id is None:
            self._check_key(request)
        else:
            self._check_conversation(request, conversation_id)

    def _check_key(self, request: HttpRequest) -> None:
        if self.settings.api_keys and not self._has_key(request):
            raise self._unauthorized()

    def _check_starting(self, request: HttpRequest) -> None:
        """Before the body is looked at: with keys on, nobody gets further without any credential."""
        if self.settings.api_keys and not self._has_key(request) and not self._token_subjects(request):
            raise self._unauthorized()

    def _check_member(self, request: HttpRequest) -> None:
        is_guarded = self.settings.api_keys or self.settings.uses_tokens
        if is_guarded and not self._has_key(request) and not self._token_subjects(request):
            raise self._unauthorized()

    def _check_conversation(self, request: HttpRequest, conversation_id: str) -> None:
        if not self.settings.uses_tokens:
            self._check_key(request)
            return
        if self._has_key(request) or conversation_id in (subjects := self._token_subjects(request)):
            return
        if subjects:
            raise Forbidden
        raise self._unauthorized()

    def _has_key(self, request: HttpRequest) -> bool:
        """Whether the request carries one of the keys. Takes equally long whichever it is, or none."""
        given = [request.headers.get(KEY_HEADER, ""), request.query.get(KEY_PARAMETER, "")]
        # Digests are of one length: comparing them does not tell how long a key is.
        matches = [
            hmac.compare_digest(_digest(key), digest)
            for digest in map(_digest, given)
            for key in self.settings.api_keys
        ]
        return any(matches)

    def _token_subjects(self, request: HttpRequest) -> list[str]:
        """The conversations of the valid tokens that the request carries.

        Raises:
            TokenExpired: one of ours among them has expired, and none is valid.
        """
        if not self.settings.uses_tokens:
            return []
        subjects: list[str] = []
        expired = False
        for token in _tokens(request):
            try:
                subjects += self._subject(token)
            except jwt.ExpiredSignatureError:
                expired = True
        if expired and not subjects:
            message = "The stream token has expired. Get a new one from the service that gave you this one."
            raise TokenExpired(message, challenge='Bearer realm="conversation", error="invalid_token"')
        return subjects

    def _subject(self, token: str) -> list[str]:
        """The conversation of a valid token, as the only element; none for a token that is not ours.

        Raises:
            jwt.ExpiredSignatureError: it is ours and has expired.
        """
        for secret in self.settings.token_secrets:
            try:
                claims = jwt.decode(
                    token,
                    secret,
                    algorithms=[ALGORITHM],
                    audience=AUDIENCE,
                    # Clocks of several instances differ: when it was issued decides nothing.
                    options={"require": ["aud", "sub", "iat", "exp"], "verify_iat": False},
                )
            except jwt.ExpiredSignatureError:
                raise
            except jwt.InvalidTokenError:
                continue
            return [str(claims["sub"])]
        return []

    def _unauthorized(self) -> Unauthorized:
        keys, tokens = bool(self.settings.api_keys), self.settings.uses_tokens
        key = f"an API key as the header {KEY_HEADER} or the query parameter {KEY_PARAMETER}"
        token = (
            f"the conversation's stream token as the header {TOKEN_HEADER}, as Authorization: Bearer, or as"
            f" the query parameter {TOKEN_PARAMETER}"
        )
        wanted = [text for text, is_on in ((key, keys), (token, tokens)) if is_on]
        challenges = [
            text
            for text, is_on in (('ApiKey realm="agents"', keys), ('Bearer realm="conversation"', tokens))
            if is_on
        ]
        return Unauthorized(f"This needs {', or '.join(wanted)}.", challenge=", ".join(challenges))


def _tokens(request: HttpRequest) -> list[str]:
    """What may be tokens, in the three places where they are taken from."""
    authorization = request.headers.get("authorization", "")
    bearer = authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else ""
    given = (request.headers.get(TOKEN_HEADER, ""), bearer.strip(), request.query.get(TOKEN_PARAMETER, ""))
    return [token for token in given if 0 < len(token) <= _MAX_TOKEN_LENGTH and token.isascii()]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
