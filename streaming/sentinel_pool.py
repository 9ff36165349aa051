"""Connections to whichever server the sentinels call the master."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """The driver's pool for sentinels, which makes a command wait for a free connection rather than fail."""

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
