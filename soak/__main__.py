"""Run a soak and print its result: ``python -m soak --seconds 300``. Exits with 1 if anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from soak.client_readers import running_clients
from soak.conversations import Conversation
from soak.counts import Counts, table
from soak.faults import inflict
from soak.plant import running_plant


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how hard."""

    seconds: float
    conversations: int
    #: Of each run, beside those with the project's clients.
    readers: int
    #: Seconds between faults, on average.
    pause: float
    words_per_second: str
    #: The name of the only fault; ``None``: all.
    only: str | None
    seed: int


async def soak(options: Options, folder: Path) -> tuple[Counts, str]:
    """Run the soak. Returns the counts and their table."""
    counts, chance = Counts(), random.Random(options.seed)
    async with running_plant(folder, options.words_per_second) as plant:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with (
            httpx.AsyncClient(base_url=plant.url, limits=limits, timeout=60, trust_env=False) as http,
            running_clients(plant.address, random.Random(chance.random())) as clients,
        ):
            memory = plant.service_memory_mb()
            stop = asyncio.Event()
            conversations = [
                Conversation(http, clients, counts, random.Random(chance.random()), readers=options.readers)
                for _ in range(options.conversations)
            ]
            talking = asyncio.gather(*(conversation.talk(stop) for conversation in conversations))
            with suppress(asyncio.CancelledError):
                await inflict(
                    plant, counts, chance, seconds=options.seconds, pause=options.pause, only=options.only
                )
            stop.set()
            await talking
            rows = [
                ("seed", str(options.seed)),
                ("time", f"{options.seconds:g} s, and until the last run had ended"),
                ("conversations", f"{options.conversations:,}"),
                ("readers of each run", f"{options.readers} raw, {clients.names}"),
                ("connections of the clients that were cut", f"{clients.proxy.cuts:,}"),
                (
                    "service's memory at the start, at the end",
                    f"{memory:.0f} MB, {plant.service_memory_mb():.0f} MB",
                ),
            ]
    return counts, table(counts, rows)


def main() -> int:
    """Run the soak that the command line describes. Returns the exit status."""
    options = _options()
    print(f"A soak of {options.seconds:g} s; repeat it with --seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    counts, result = asyncio.run(soak(options, folder))
    print(result)
    if counts.is_clean:
        shutil.rmtree(folder)
        return 0
    for detail in counts.details:
        print(f"- {detail}")
    print(f"What the service and its Redis have to say is in {folder}.")
    return 1


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS", "300")))
    # What two cores can do with four readers for each run.
    parser.add_argument("--conversations", type=int, default=60)
    parser.add_argument("--readers", type=int, default=2, help="raw ones of each run")
    parser.add_argument("--pause", type=float, default=8, help="seconds between faults, on average")
    parser.add_argument("--words-per-second", default="10", help="of the demo model")
    parser.add_argument("--only", metavar="FAULT", help="such as redis_killed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
