"""Conversations under load: turns, their readers, and the check of what each reader has in the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import httpx

from soak.client_readers import WAYS, Clients
from soak.counts import Counts
from soak.reader import Habits, Reader, Reading, RunReader

AGENT: Final = "TravelPlanner"
_CITIES: Final = ("Tokyo", "Rome", "Paris", "Lisbon", "Kyoto", "Oslo")
#: A run whose readers have not come to its end after this time, in seconds, hangs. A run takes as long as its
#: model; every fault is over within seconds.
HANG_SECONDS: Final = 240.0
#: Shares of runs that are cancelled, and of readers that are slow.
CANCELLED: Final = 0.06
SLOW: Final = 0.1
#: How long a service that is away is asked again, in seconds.
PATIENCE_SECONDS: Final = 90.0
#: Ends that a status stands for, as readers see them.
_ENDS: Final = {"Completed": "done", "Canceled": "done"}
#: What all readers have of a run that was never executed.
_NEVER: Final = {("", "done")}


class Conversation:
    """One conversation's turns, one after the other, until told to stop."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        clients: Clients,
        counts: Counts,
        chance: random.Random,
        *,
        readers: int,
    ) -> None:
        self._http = http
        self._clients = clients
        self._counts = counts
        self._chance = chance
        self._readers = readers
        self._id: str | None = None

    async def talk(self, stop: asyncio.Event) -> None:
        """Take turns until ``stop`` is set; the last one is taken to its end."""
        while not stop.is_set():
            await self._turn()

    async def _turn(self) -> None:
        city = self._chance.choice(_CITIES)
        body = {
            "message": f"Plan a {self._chance.randint(1, 3)}-day trip to {city}",
            "conversation_id": self._id,
        }
        run = await self._ask("POST", f"/api/agents/{AGENT}/run", json=body)
        if run is None:
            return
        self._id = run["conversation_id"]
        readers: list[RunReader] = [self._reader(run) for _ in range(self._readers)]
        readers += self._clients.readers(run, [self._chance.choice(WAYS)], self._counts)
        try:
            async with asyncio.timeout(HANG_SECONDS):
                readings = asyncio.gather(*map(self._read, readers))
                if is_cancelled := self._chance.random() < CANCELLED:
                    await asyncio.sleep(self._chance.uniform(0, 2))
                    await self._ask("DELETE", run["links"]["status"])
                await self._check(run, await readings, is_cancelled=is_cancelled)
        except TimeoutError:
            left = [reader.reading for reader in readers if reader.reading.end is None]
            places = ", ".join(f"{one.kind} at {one.cursor} over {one.connections}" for one in left)
            self._counts.defect("hung", f"run {run['correlation_id']} of {run['conversation_id']}: {places}")

    def _reader(self, run: dict[str, Any]) -> Reader:
        habits = Habits(
            cut_after=self._chance.choice((0, 500, 3_000, 20_000)), is_slow=self._chance.random() < SLOW
        )
        return Reader(self._http, run, habits, random.Random(self._chance.random()), self._counts)

    async def _read(self, reader: RunReader) -> Reading:
        # Not all come at the beginning.
        await asyncio.sleep(self._chance.uniform(0, 1.5))
        return await reader.read()

    async def _check(self, run: dict[str, Any], readings: list[Reading], *, is_cancelled: bool) -> None:
        status = await self._ask("GET", run["links"]["status"])
        if (
            status is None
            and is_cancelled
            and {(reading.text, reading.end) for reading in readings} == _NEVER
        ):
            # Only Redis knew of it, and was flushed since.
            self._counts.runs["Canceled before it began, forgotten"] += 1
            return
        if status is None:
            self._counts.defect("lost", f"no status of run {run['correlation_id']}")
            return
        self._counts.runs[status["status"]] += 1
        for reading in readings:
            name = f"run {run['correlation_id']}, {status['status']}, {reading.kind}"
            end = _ENDS.get(status["status"], status.get("code"))
            if reading.end != end:
                self._counts.defect("wrong end", f"{name}: got {reading.end}, expected {end}")
            if reading.text != status["response"]:
                kind = "lost" if len(reading.text) < len(status["response"]) else "doubled"
                lengths = f"{len(reading.text)} of {len(status['response'])} characters"
                self._counts.defect(kind, f"{name}: {lengths} over {reading.connections} connections")

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any] | None:
        """Ask the service, again while it is away."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + PATIENCE_SECONDS
        while loop.time() < give_up_at:
            try:
                answer = await self._http.request(method, path, **options)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code < 500:
                return dict(answer.json()) if answer.is_success else None
            await asyncio.sleep(self._chance.uniform(0.1, 0.5))
        self._counts.defect("hung", f"{method} {path} is not answered")
        return None
