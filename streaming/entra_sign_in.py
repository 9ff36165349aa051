"""Signs in to Azure Managed Redis with Microsoft Entra ID: a token instead of a password."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from azure.identity import DefaultAzureCredential
from redis.auth.err import RequestTokenErr
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis_entraid.identity_provider import DefaultAzureCredentialProvider  # type: ignore[import-untyped]

from streaming.redis_address import EntraSignIn

#: A token comes within this time or Redis counts as away. Mostly it is in memory; a managed identity takes a
#: fraction of a second. Left alone, the credential tries for minutes.
SIGN_IN_TIMEOUT: Final = timedelta(seconds=5)
#: What a token is asked for.
#: Source: https://learn.microsoft.com/azure/redis/entra-for-authentication
SCOPE: Final = "https://redis.azure.com/.default"


class EntraCredentials(CredentialProvider):
    """User and password of each new connection: the identity's object id and a fresh token.

    The server closes a connection when its token expires; the next one brings a new token. The driver's own
    way, to sign in again on open connections, asks for the token on the event loop, and can't do it for
    subscriptions at all.
    """

    def __init__(self, sign_in: EntraSignIn) -> None:
        # It keeps the token until it is about to expire.
        credential = DefaultAzureCredential(managed_identity_client_id=sign_in.client_id)
        #: Its own, so that slow sign-ins don't take the threads on which tools run. One: who waits for it is
        #: given what it has got.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="entra-sign-in")
        self._tokens = DefaultAzureCredentialProvider(credential, (SCOPE,))

    async def get_credentials_async(self) -> tuple[str, str]:
        """User and password.

        Raises:
            RedisConnectionError: there is no token.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SIGN_IN_TIMEOUT.total_seconds()):
                token = await loop.run_in_executor(self._thread, self._tokens.request_token)
        except (RequestTokenErr, TimeoutError) as error:
            raise RedisConnectionError("Microsoft Entra ID gave no token for Redis.") from error
        return str(token.try_get("oid")), str(token.get_value())
