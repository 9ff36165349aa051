"""Turns the driver's errors into ours, where they leave for a client."""

from __future__ import annotations

from redis.exceptions import RedisError, ResponseError

from streaming.errors import NotAStream, StreamingError, StreamUnavailable


def describe(error: RedisError) -> StreamingError:
    """What a client is told. All but one are trouble that passes: to try again helps."""
    if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
        return NotAStream()
    return StreamUnavailable()
