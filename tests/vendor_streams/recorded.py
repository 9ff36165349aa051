"""What tests say of a recorded run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import StreamChunk

TTL: Final = timedelta(minutes=10)
#: Nothing here takes a tenth of it; a hang is to fail, not to last.
BOUND: Final = 30.0


async def recorded(handler: RedisStreamResponseHandler, conversation: str) -> list[StreamChunk]:
    """All that is in the stream, to the end of its run."""
    async with asyncio.timeout(BOUND):
        return [chunk async for chunk in handler.read_stream(conversation, events=True)]


def text_of(chunks: Sequence[StreamChunk]) -> str:
    """The text that a reader shows in the end."""
    texts: list[str] = []
    for chunk in chunks:
        if chunk.type == "reset":
            texts.clear()
        texts.append(chunk.text or "")
    return "".join(texts)


def types_of(chunks: Sequence[StreamChunk]) -> list[str]:
    """Each entry's type, or ``text``, or the terminal's status."""
    return [chunk.type or ("text" if chunk.status is None else chunk.status.value) for chunk in chunks]
