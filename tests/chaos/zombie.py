"""A worker of its own process: executes a run, and says on its output how far it is and how it ended."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from tests.chaos.redis_load import PacedAgent, handler_on, leases_on
from tests.contract.scripted_agent import DurableConversation

CHUNKS = 400
PAUSE = timedelta(milliseconds=10)


async def main(url: str) -> str:
    """Execute run ``r`` of conversation ``c``; how it ended."""
    agent = PacedAgent(*(f"zombie:{number} " for number in range(CHUNKS)), pause=PAUSE)
    async with handler_on(url) as handler, leases_on(url) as leases:
        conversation = DurableConversation(handler, agent, "c", leases)
        try:
            await conversation.start("r")
        except asyncio.CancelledError:
            return f"stopped kept={bool(conversation.saved)} leases={leases.running()}"
        return "finished"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(sys.argv[1])) + "\n")
