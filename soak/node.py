"""The JavaScript client, in one process of Node for all its readers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

_PROGRAM: Final = Path(__file__).with_name("run_reader.mjs")
#: Bytes of one answer at most: an answer's events are far fewer.
_LONGEST_LINE: Final = 64 * 1024 * 1024


class NodeEnded(Exception):
    """The process that the JavaScript client reads in has ended by itself."""


class Node:
    """Takes jobs as lines of JSON, and gives what became of them."""

    def __init__(self, asks: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        """Talk with a process that has been started."""
        self._asks = asks
        self._answers = answers
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self, conversation: str, run: str, how: str) -> dict[str, Any]:
        """Read a run to its end: its ``text()`` or its ``events``.

        Raises:
            NodeEnded: there is no Node any more.
        """
        job = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[job] = answer
        try:
            await self._send({"job": job, "conversation": conversation, "run": run, "how": how})
            return await answer
        finally:
            if not self._waiting.pop(job).done():
                with contextlib.suppress(NodeEnded):
                    await self._send({"leave": job})

    async def _send(self, job: dict[str, Any]) -> None:
        try:
            self._asks.write(json.dumps(job).encode() + b"\n")
            await self._asks.drain()
        except ConnectionError as error:
            raise NodeEnded from error

    async def take_answers(self) -> None:
        """Hand out the answers as they come, until the process ends."""
        while line := await self._answers.readline():
            told: dict[str, Any] = json.loads(line)
            answer = self._waiting.get(told["job"])
            if answer is not None and not answer.done():
                answer.set_result(told)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NodeEnded("Node has ended; what it said is above."))


@asynccontextmanager
async def running_node(url: str, *, haste: int) -> AsyncIterator[Node | None]:
    """A process that reads from the service at ``url``; ``None``: Node is not installed.

    Its pauses before it comes back are ``haste`` times shorter than a page's.
    """
    binary = shutil.which("node")
    if binary is None:
        yield None
        return
    process = await asyncio.create_subprocess_exec(
        binary, str(_PROGRAM), url, str(haste), stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE
    )
    assert process.stdin is not None  # noqa: S101 - it was started with both
    assert process.stdout is not None  # noqa: S101
    node = Node(process.stdin, process.stdout)
    answers = asyncio.create_task(node.take_answers())
    try:
        yield node
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await answers
