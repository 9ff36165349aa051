"""The driver's errors in the words of one who looks."""

from __future__ import annotations

from redis.exceptions import NoPermissionError, RedisError

from streaming.errors import StreamingError
from streaming.store.trouble import describe


class NotPermitted(StreamingError):
    """The Redis user may not look at everything: docs/inspect.md names the rights that looking needs."""

    code = "not_permitted"
    http_status = 503


def explain(error: RedisError) -> StreamingError:
    """What to tell of an error."""
    return NotPermitted() if isinstance(error, NoPermissionError) else describe(error)
