"""Who is let in: keys, stream tokens, and what either opens: docs/protocol.md, 5.8."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import pytest

from streaming.access_settings import AccessSettings
from streaming.errors import Forbidden, TokenExpired, Unauthorized
from streaming.http.access import ALGORITHM, AUDIENCE, Access, Needs
from streaming.http.messages import HttpRequest

KEYS: Final = ("a-key-of-an-old-day", "a-key-of-a-new-day!")
SECRETS: Final = ("signs-and-verifies-" * 4, "only-verifies-" * 5)
OPEN: Final = AccessSettings()
WITH_KEYS: Final = AccessSettings(api_keys=KEYS)
WITH_TOKENS: Final = AccessSettings(token_secrets=SECRETS)
WITH_BOTH: Final = AccessSettings(api_keys=KEYS, token_secrets=SECRETS)
MINE: Final = "my-conversation"


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    # Some are made when tests are collected, long before they are used.
    return {"aud": AUDIENCE, "sub": MINE, "iat": now, "exp": now + 86_400, **changed}


def signed(secret: str = SECRETS[0], **changed: Any) -> str:
    given = {name: value for name, value in claims(**changed).items() if value is not None}
    return jwt.encode(given, secret, algorithm=ALGORITHM)


def asking(token: str = "", *, key: str = "", conversation_id: str = MINE) -> HttpRequest:
    headers = {"x-stream-token": token, "x-functions-key": key}
    return HttpRequest(
        path={"conversation_id": conversation_id},
        headers={name: value for name, value in headers.items() if value},
    )


def verdict(settings: AccessSettings, needs: Needs, request: HttpRequest) -> str:
    """How a request fares at a route: ``in``, or the code that it is refused with."""
    try:
        Access(settings).check(needs, request)
    except (Unauthorized, Forbidden) as refused:
        return refused.code
    return "in"


@pytest.mark.parametrize("needs", Needs)
def test_without_settings_everybody_is_let_in(needs: Needs) -> None:
    """With neither keys nor tokens set nothing is asked for, and what is sent anyway does no harm."""
    assert verdict(OPEN, needs, asking()) == "in"
    assert verdict(OPEN, needs, asking("nonsense", key="nonsense")) == "in"


@pytest.mark.parametrize(
    ("settings", "needs", "expected"),
    [
        (WITH_KEYS, Needs.NOTHING, ("in", "in", "in", "in")),
        (WITH_KEYS, Needs.HEALTH, ("in", "in", "in", "in")),
        (WITH_KEYS, Needs.KEY, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_KEYS, Needs.JOINING, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_KEYS, Needs.CONVERSATION, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_KEYS, Needs.MEMBER, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_TOKENS, Needs.MEMBER, ("unauthorized", "unauthorized", "in", "in")),
        (WITH_BOTH, Needs.MEMBER, ("unauthorized", "in", "in", "in")),
        (WITH_TOKENS, Needs.KEY, ("in", "in", "in", "in")),
        (WITH_TOKENS, Needs.JOINING, ("in", "in", "in", "in")),
        (WITH_TOKENS, Needs.CONVERSATION, ("unauthorized", "unauthorized", "in", "forbidden")),
        (WITH_BOTH, Needs.HEALTH, ("in", "in", "in", "in")),
        (WITH_BOTH, Needs.KEY, ("unauthorized", "in", "unauthorized", "unauthorized")),
        # Which conversation it is for is looked at when the body is known: test_joining.
        (WITH_BOTH, Needs.JOINING, ("unauthorized", "in", "in", "in")),
        (WITH_BOTH, Needs.CONVERSATION, ("unauthorized", "in", "in", "forbidden")),
    ],
)
def test_what_opens_what(settings: AccessSettings, needs: Needs, expected: tuple[str, ...]) -> None:
    """Each route takes exactly the credentials that its row says: none, a key, its own token, another's."""
    bare, key, own_token, other_token = expected
    assert verdict(settings, needs, asking()) == bare
    assert verdict(settings, needs, asking(key=KEYS[0])) == key
    assert verdict(settings, needs, asking(key=KEYS[1])) == key
    assert verdict(settings, needs, asking(signed())) == own_token
    assert verdict(settings, needs, asking(signed(sub="another"))) == other_token


@pytest.mark.parametrize(
    ("settings", "conversation_id", "expected"),
    [
        (WITH_KEYS, None, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_KEYS, MINE, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_TOKENS, None, ("in", "in", "in", "in")),
        (WITH_TOKENS, MINE, ("unauthorized", "unauthorized", "in", "forbidden")),
        (WITH_BOTH, None, ("unauthorized", "in", "unauthorized", "unauthorized")),
        (WITH_BOTH, MINE, ("unauthorized", "in", "in", "forbidden")),
    ],
)
def test_joining(settings: AccessSettings, conversation_id: str | None, expected: tuple[str, ...]) -> None:
    """A run in a conversation takes its token or a key; in a new one it takes a key, where there are keys."""
    found = []
    for request in (asking(), asking(key=KEYS[0]), asking(signed()), asking(signed(sub="another"))):
        try:
            Access(settings).check_joining(request, conversation_id)
            found.append("in")
        except (Unauthorized, Forbidden) as refused:
            found.append(refused.code)
    assert tuple(found) == expected


def test_health_can_want_a_key() -> None:
    """Health is open to everybody unless the setting says that it is not."""
    closed = replace(WITH_KEYS, health_anonymous=False)
    assert verdict(closed, Needs.HEALTH, asking()) == "unauthorized"
    assert verdict(closed, Needs.HEALTH, asking(key=KEYS[0])) == "in"


def test_a_key_in_the_query() -> None:
    """The query parameter ``code`` carries a key too; what is almost a key opens nothing."""
    for code, expected in ((KEYS[1], "in"), (KEYS[1][:-1], "unauthorized"), (KEYS[1] + " ", "unauthorized")):
        assert verdict(WITH_KEYS, Needs.KEY, HttpRequest(query={"code": code})) == expected
    both = HttpRequest(query={"code": KEYS[0]}, headers={"x-functions-key": "wrong ünd odd"})
    assert verdict(WITH_KEYS, Needs.KEY, both) == "in"


@pytest.mark.parametrize(
    "request_with",
    [
        lambda token: HttpRequest(headers={"x-stream-token": token}),
        lambda token: HttpRequest(headers={"authorization": f"Bearer {token}"}),
        lambda token: HttpRequest(headers={"authorization": f"bearer  {token} "}),
        lambda token: HttpRequest(query={"token": token}),
        # A gateway's own bearer token is in nobody's way.
        lambda token: HttpRequest(headers={"authorization": "Bearer of-a-gateway"}, query={"token": token}),
    ],
)
def test_where_a_token_is_taken_from(request_with: Any) -> None:
    """A token comes as a header, as a bearer, or in the query, where an EventSource can put it."""
    request = replace(request_with(signed()), path={"conversation_id": MINE})
    assert verdict(WITH_TOKENS, Needs.CONVERSATION, request) == "in"


def unsigned() -> str:
    head, body = ({"alg": "none", "typ": "JWT"}, claims())
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, body)
    ]
    return ".".join((*parts, ""))


def nested() -> str:
    head = base64.urlsafe_b64encode(b"[" * 1_400).rstrip(b"=").decode()
    return f"{head}.e30.x"


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "a.b.c",
        "ü.ü.ü",
        "\ud800",
        "." * 5_000,
        nested(),
        unsigned(),
        signed("another-secret-" * 5),
        signed()[:-4] + "AAAA",
        signed(aud="another-service"),
        signed(aud=None),
        signed(sub=None),
        signed(exp=None),
        signed(iat=None),
        jwt.PyJWS().encode(json.dumps(claims(sub=[MINE])).encode(), SECRETS[0], algorithm=ALGORITHM),
        jwt.PyJWS().encode(b"[]", SECRETS[0], algorithm=ALGORITHM),
        jwt.encode(claims(), SECRETS[0], algorithm="HS512"),
        jwt.encode(claims(), SECRETS[0], algorithm="HS384"),
    ],
)
def test_what_is_no_token_of_ours(token: str) -> None:
    """A token that is malformed, unsigned, for others, incomplete or of another algorithm opens nothing."""
    assert verdict(WITH_TOKENS, Needs.CONVERSATION, asking(token)) == "unauthorized"


def test_an_expired_token() -> None:
    """An expired token is told apart, so that a page can get a new one; a valid one beside it still opens."""
    expired = signed(exp=int(time.time()) - 1)
    with pytest.raises(TokenExpired) as caught:
        Access(WITH_TOKENS).check(Needs.CONVERSATION, asking(expired))
    assert 'error="invalid_token"' in caught.value.challenge
    both = HttpRequest(
        path={"conversation_id": MINE}, headers={"x-stream-token": expired}, query={"token": signed()}
    )
    assert verdict(WITH_TOKENS, Needs.CONVERSATION, both) == "in"
    forged = signed("another-secret-" * 5, exp=1)
    assert verdict(WITH_TOKENS, Needs.CONVERSATION, asking(forged)) == "unauthorized"


def test_secrets_are_rotated() -> None:
    """The first secret signs, every one verifies: an old one is retired when its last token has expired."""
    issued = Access(WITH_TOKENS).issue(MINE)
    assert issued is not None
    jwt.decode(issued.value, SECRETS[0], algorithms=[ALGORITHM], audience=AUDIENCE)
    assert verdict(WITH_TOKENS, Needs.CONVERSATION, asking(signed(SECRETS[1]))) == "in"
    retired = replace(WITH_TOKENS, token_secrets=SECRETS[:1])
    assert verdict(retired, Needs.CONVERSATION, asking(signed(SECRETS[1]))) == "unauthorized"


def test_an_issued_token() -> None:
    """A token opens its own conversation until it expires, and says when; without secrets there is none."""
    access = Access(replace(WITH_TOKENS, token_ttl=timedelta(minutes=5)))
    issued = access.issue(MINE)
    assert issued is not None
    assert timedelta(minutes=4) < issued.expires_at - datetime.now(UTC) <= timedelta(minutes=5)
    access.check(Needs.CONVERSATION, asking(issued.value))
    assert issued.fields == {
        "stream_token": issued.value,
        "stream_token_expires_at": issued.expires_at.isoformat(),
    }
    assert issued.headers["x-stream-token"] == issued.value
    assert Access(WITH_KEYS).issue(MINE) is None


@pytest.mark.parametrize("settings", [WITH_KEYS, WITH_TOKENS, WITH_BOTH])
def test_a_refusal_says_what_is_wanted(settings: AccessSettings) -> None:
    """The sentence and the challenge say what would be taken, and neither repeats what was sent."""
    with pytest.raises(Unauthorized) as caught:
        Access(settings).check(Needs.CONVERSATION, asking("wrong", key="wrong"))
    message, challenge = caught.value.message, caught.value.challenge
    assert ("x-functions-key" in message, "ApiKey" in challenge) == (bool(settings.api_keys),) * 2
    assert ("x-stream-token" in message, "Bearer" in challenge) == (settings.uses_tokens,) * 2
    assert "wrong" not in message
    assert not any(secret in message + repr(settings) for secret in KEYS + SECRETS)
