"""Connections to whichever server the sentinels call the master."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """The driver's pool for sentinels, which makes a command wait for a free connection rather than fail."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()

    async def get_master_address(self) -> Any:
        """Ask the sentinels, one question at a time.

        The driver moves the sentinel that answered to the front of its list, by a place that another question
        may have changed meanwhile: one sentinel would then be there twice, and another never asked again.
        """
        async with self._asking:
            return await super().get_master_address()  # type: ignore[no-untyped-call]

    # A flag by position, as the driver has it.
    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002
        """Close all connections, or the idle ones: the master has changed.

        Those without waiting: one that is being closed could be taken for a command.
        """
        if inuse_connections:
            await super().disconnect()
            return
        for connection in self._available_connections:
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Close all connections, those to the sentinels too."""
        await super().aclose()
        await self.sentinel_manager.aclose()
