"""Connections to whichever server the sentinels call the master."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """The driver's pool for sentinels, which makes a command wait for a free connection rather than fail."""

    async def aclose(self) -> None:
        """Close all connections, those to the sentinels too."""
        await super().aclose()
        await self.sentinel_manager.aclose()
