"""What is inflicted on the service and its Redis."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from soak.counts import Counts
from soak.plant import Plant

Fault = Callable[[Plant, random.Random], Awaitable[None]]

#: How long Redis stays away, in seconds: up to longer than a lease, shorter than a writer's patience.
LONGEST_ABSENCE: Final = 12.0


async def redis_connections_cut(plant: Plant, _chance: random.Random) -> None:
    """Every connection to Redis is cut at once, whatever is on its way over it."""
    async with Redis.from_url(plant.redis_url) as redis:
        for kind in ("normal", "pubsub"):
            await redis.client_kill_filter(_type=kind, skipme=True)


async def redis_frozen(plant: Plant, chance: random.Random) -> None:
    """Redis answers nothing for a while; connections stay open."""
    plant.signal_redis(signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(0.5, LONGEST_ABSENCE))
    plant.signal_redis(signal.SIGCONT)


async def redis_killed(plant: Plant, chance: random.Random) -> None:
    """Redis ends without a warning and comes back with what it had written."""
    await plant.kill_redis()
    await asyncio.sleep(chance.uniform(0.1, LONGEST_ABSENCE / 2))
    await plant.start_redis()


async def scripts_forgotten(plant: Plant, _chance: random.Random) -> None:
    """Redis no longer knows the scripts."""
    async with Redis.from_url(plant.redis_url) as redis:
        await redis.script_flush()


async def redis_flushed(plant: Plant, _chance: random.Random) -> None:
    """Redis forgets everything."""
    async with Redis.from_url(plant.redis_url) as redis:
        await redis.flushall()


async def service_killed(plant: Plant, chance: random.Random) -> None:
    """The service ends without a warning, and a new one starts."""
    await plant.kill_service()
    await asyncio.sleep(chance.uniform(0.1, 2))
    await plant.start_service()


PASSING: Final[tuple[Fault, ...]] = (redis_connections_cut, redis_frozen, redis_killed, scripts_forgotten)
#: Memory of ended runs that a flush has left only in the service dies with it, so these two take turns: the
#: service is killed in the first half of a soak, Redis is flushed in the second.
FIRST_HALF: Final[tuple[Fault, ...]] = (*PASSING, service_killed)
SECOND_HALF: Final[tuple[Fault, ...]] = (*PASSING, redis_flushed)
#: Between the halves, for so many seconds (in a short soak a tenth of it), neither: readers hear of the runs
#: that the last kill has ended before a flush can take them away.
BETWEEN: Final = 30.0


async def inflict(
    plant: Plant, counts: Counts, chance: random.Random, *, seconds: float, pause: float, only: str | None
) -> None:
    """Inflict one fault after the other (``only`` those of a name), with so long pauses on average."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while (elapsed := loop.time() - begun) < seconds:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
        faults = FIRST_HALF if elapsed < seconds / 2 else SECOND_HALF
        if seconds / 2 <= elapsed < seconds / 2 + min(BETWEEN, seconds / 10):
            faults = PASSING
        if only is not None:
            faults = tuple(
                fault for fault in (*PASSING, service_killed, redis_flushed) if fault.__name__ == only
            )
        fault = chance.choice(faults)
        counts.faults[fault.__name__.replace("_", " ")] += 1
        try:
            await fault(plant, chance)
        except (RedisError, OSError):
            # It met Redis in the middle of another trouble.
            continue
