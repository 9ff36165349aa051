"""Reads a run's stream to its end, for those who want the answer and not its making."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from streaming.durable_answer import Restore
from streaming.entries import RESET, RunStatus, StreamChunk
from streaming.errors import StreamUnavailable, WaitTimedOut
from streaming.reading.reader import StreamReader
from streaming.store.run_states import RunState
from streaming.text_blocks import chunks_of


@dataclass(frozen=True, slots=True)
class Answer:
    """How a run ended."""

    text: str
    error: str | None = None
    code: str | None = None
    status: RunStatus = RunStatus.COMPLETED


async def collect_answer(
    reader: StreamReader, state: RunState, timeout: timedelta, restore: Restore
) -> Answer:
    """Wait for the end of a run.

    Raises:
        WaitTimedOut: the run went on longer than ``timeout``.
        RunNotFound: the run is no longer known.
        StreamUnavailable: Redis does not answer.
    """
    texts: list[str] = []
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            opened = await reader.open(state.conversation_id, run=state.run, restore=restore)
            async with aclosing(opened) as batches:
                async for batch in batches:
                    for chunk in chunks_of(batch):
                        if chunk.is_terminal:
                            return _answer("".join(texts), chunk)
                        if chunk.type == RESET:
                            texts.clear()
                        texts.append(chunk.text or "")
                    # The next may be long in coming.
                    del batch
    except TimeoutError:
        raise WaitTimedOut from None
    raise StreamUnavailable


def _answer(text: str, terminal: StreamChunk) -> Answer:
    status = terminal.status or (RunStatus.COMPLETED if terminal.error is None else RunStatus.FAILED)
    if status is RunStatus.CANCELLED:
        return Answer(text, "The run was cancelled.", status.value, status)
    return Answer(text, terminal.error, terminal.code, status)
