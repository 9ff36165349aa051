"""The way to the service: its address, keys and tokens, and requests that are answered at once."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import httpx

from clients.errors import InvalidOption, OutcomeUnknown, Unreachable
from clients.patience import Patience, Reconnect, Retrying, Trouble
from clients.refusals import describe, is_permanent, judge, read_json

_log = logging.getLogger("clients")

KEY_HEADER: Final = "x-functions-key"
TOKEN_HEADER: Final = "x-stream-token"  # noqa: S105 - a name, no secret
#: Streams that one client may have open at once; the next one waits.
MAX_CONNECTIONS: Final = 1_000
#: Conversations that are remembered with their tokens: of more, the oldest are forgotten.
MAX_CONVERSATIONS: Final = 10_000
#: An answer to a request that does not stream takes a second; a failover of its Redis, some more.
ANSWER_TIMEOUT: Final = timedelta(seconds=60)
#: For the upload of a message.
_WRITE_TIMEOUT: Final = timedelta(seconds=30)
#: What a header can carry, and no more.
_SECRET: Final = re.compile(r"[\x21-\x7e]+")
#: These loggers write the heads of answers at DEBUG; that of a run's has its token.
_LOGGERS_OF_HEADS: Final = ("httpcore.http11", "httpcore.http2")

#: Is told before the client waits and comes back.
OnReconnect = Callable[[Reconnect], None]


class _HidesTokens(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return TOKEN_HEADER not in record.getMessage().lower()


_HIDES_TOKENS: Final = _HidesTokens()


@dataclass(frozen=True, slots=True)
class _Started:
    run: str
    token: str | None = field(repr=False)


class Link:
    """One service, as one client may use it."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        stream_token: str | None,
        patience: Patience,
        transport: httpx.AsyncBaseTransport | None,
        on_reconnect: OnReconnect | None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.patience = patience
        self._api_key = _checked_secret("api_key", api_key)
        self._stream_token = _checked_secret("stream_token", stream_token)
        #: By conversation, what this client has started last.
        self._started: OrderedDict[str, _Started] = OrderedDict()
        self._on_reconnect = on_reconnect
        for name in _LOGGERS_OF_HEADS:
            logging.getLogger(name).addFilter(_HIDES_TOKENS)
        self.http = httpx.AsyncClient(
            base_url=self.base_url,
            transport=transport,
            # No connection is used twice: one that died while it was idle would make it unknown whether a
            # run was started.
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
            # A redirect would carry the key to wherever it leads; this protocol has none.
            follow_redirects=False,
        )

    def headers(self, conversation_id: str | None) -> dict[str, str]:
        """What every request carries."""
        # A stream that is compressed on its way comes late.
        headers = {"accept-encoding": "identity"}
        if self._api_key is not None:
            headers[KEY_HEADER] = self._api_key
        started = self._started.get(conversation_id or "")
        token = (started.token if started else None) or self._stream_token
        if token is not None:
            headers[TOKEN_HEADER] = token
        return headers

    def remember(self, conversation_id: str, run: str, token: object) -> None:
        """A run was started in this conversation; use the token that came with it, if one did."""
        before = self._started.pop(conversation_id, None)
        is_usable = isinstance(token, str) and _SECRET.fullmatch(token) is not None
        usable = str(token) if is_usable else before.token if before else None
        self._started[conversation_id] = _Started(run, usable)
        if len(self._started) > MAX_CONVERSATIONS:
            self._started.popitem(last=False)

    def has_started(self, conversation_id: str, run: str | None) -> bool:
        """Whether this client has started the run (``None``: any) as the last one, so that it was known."""
        started = self._started.get(conversation_id)
        return started is not None and run in (None, started.run)

    def timeouts(self, read: timedelta) -> httpx.Timeout:
        """The timeouts of a request whose answer is silent for ``read`` at most."""
        return httpx.Timeout(
            connect=self.patience.connect_timeout.total_seconds(),
            read=read.total_seconds(),
            write=_WRITE_TIMEOUT.total_seconds(),
            pool=self.patience.give_up_after.total_seconds(),
        )

    async def pause(self, reconnect: Reconnect) -> None:
        """Tell that the client comes back, and wait until then."""
        delay = reconnect.delay.total_seconds()
        _log.info("reconnecting: reason=%r attempt=%d in=%.1fs", reconnect.reason, reconnect.attempt, delay)
        if self._on_reconnect is not None:
            self._on_reconnect(reconnect)
        await asyncio.sleep(delay)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        conversation_id: str | None,
        params: dict[str, str] | None = None,
        content: dict[str, Any] | None = None,
        is_repeatable: bool = True,
    ) -> dict[str, Any]:
        """Send a request until it is answered; the answer.

        Args:
            method: Of the request.
            path: With its parts quoted.
            conversation_id: Whose token it carries.
            params: The query.
            content: The body.
            is_repeatable: Whether it may be executed twice. What may not is sent again only where it has
                certainly not been executed.

        Raises:
            RequestRefused: the service refuses it.
            Unreachable: the service is away for longer than the patience lasts.
            OutcomeUnknown: the connection broke after a request was sent that may not be executed twice.
        """
        retrying = Retrying(self.patience, asyncio.get_running_loop().time)
        while True:
            request = self.http.build_request(
                method,
                path,
                params=params,
                json=content,
                headers=self.headers(conversation_id) | {"accept": "application/json"},
                timeout=self.timeouts(ANSWER_TIMEOUT),
            )
            outcome = await self._answer(request, is_repeatable=is_repeatable)
            if not isinstance(outcome, Trouble):
                return outcome
            await self.pause(retrying.next(outcome))

    async def _answer(self, request: httpx.Request, *, is_repeatable: bool) -> dict[str, Any] | Trouble:
        try:
            response = await self.http.send(request, stream=True)
            try:
                if response.is_success:
                    return await read_answer(response)
                trouble = await judge(response)
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            return self.trouble_of(error, is_repeatable=is_repeatable)
        if not is_repeatable and response.status_code not in _NOT_EXECUTED:
            raise OutcomeUnknown(trouble.reason)
        return trouble

    def trouble_of(self, error: httpx.RequestError, *, is_repeatable: bool = True) -> Trouble:
        """Why a request that met an error is to be sent again.

        Raises:
            Unreachable: it is of no use.
            OutcomeUnknown: it may have been executed, and must not be twice.
        """
        reason = describe(error)
        if is_permanent(error):
            raise Unreachable("its certificate is not trusted", after=timedelta(0)) from error
        if not is_repeatable and not isinstance(error, _NEVER_SENT):
            raise OutcomeUnknown(reason) from error
        return Trouble(reason)


#: The service, or a proxy before it, says by these that it did nothing.
_NOT_EXECUTED: Final = (408, 429, 503)
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


async def read_answer(response: httpx.Response) -> dict[str, Any]:
    """The JSON of a success; the token that came with it as ``stream_token``."""
    content = await read_json(response)
    if TOKEN_HEADER in response.headers:
        content.setdefault("stream_token", response.headers[TOKEN_HEADER])
    return content


def path_part(name: str, value: str) -> str:
    """One part of a path.

    Raises:
        InvalidOption: it would be none.
    """
    if not value or value in (".", ".."):
        raise InvalidOption(name, f"got {value!r}, expected a name of letters, digits, '.', '_' and '-'.")
    return quote(value, safe="")


def _checked_url(base_url: str) -> str:
    """An address that keys may be sent to. What is wrong with it is said without showing it."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise InvalidOption("base_url", "expected an address such as http://127.0.0.1:7071.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidOption("base_url", "expected an address such as http://127.0.0.1:7071.")
    if url.userinfo or url.query or url.fragment:
        raise InvalidOption("base_url", "has a password, a query or a fragment: give keys as api_key.")
    return str(url).rstrip("/")


def _checked_secret(name: str, value: str | None) -> str | None:
    if value is not None and not _SECRET.fullmatch(value):
        raise InvalidOption(name, "expected visible ASCII characters without spaces; it is not shown here.")
    return value
