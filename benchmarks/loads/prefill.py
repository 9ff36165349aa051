"""Fills a Redis before something is measured, by scripts on the server: a million entries take seconds.

python -m benchmarks.loads.prefill REDIS_URL KEY CHUNKS
"""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import timedelta
from typing import Final

from redis import Redis
from redis.exceptions import ResponseError

from benchmarks.loads.pacing import say_outcome

#: Entries, or conversations, of one call: some 20 ms.
_AT_ONCE: Final = 5_000
#: Until Redis has written its file anew, and how often it is looked, in seconds.
_REWRITE_TIMEOUT: Final = 60.0
_POLL: Final = 0.05
_TTL: Final = int(timedelta(minutes=30).total_seconds())

#: A stream as the published sample writes it, which this project reads too. ARGV: first, last, done, TTL (s).
_CHUNKS: Final = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  redis.call('XADD', KEYS[1], '*', 'text', '@' .. n .. ' 0;', 'sequence', n, 'timestamp', '1795215680986')
end
if ARGV[3] == '1' then
  redis.call('XADD', KEYS[1], '*', 'text', '', 'sequence', tonumber(ARGV[2]) + 1,
    'timestamp', '1795215680986', 'done', 'true')
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
"""

#: Conversations with one run of one entry each. ARGV: first, last, TTL (s).
_CONVERSATIONS: Final = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local key = 'agent-stream:idle-' .. n
  redis.call('XADD', key, '*', 'text', 'idle', 'sequence', 0, 'timestamp', '1795215680986')
  redis.call('EXPIRE', key, ARGV[3])
  local state = '{agent-stream:idle-' .. n .. '}:run:idle'
  redis.call('HSET', state, 'agent', 'Bench', 'status', 'completed', 'attempt', 1, 'next', 1)
  redis.call('EXPIRE', state, ARGV[3])
end
"""


def fill_stream(redis_url: str, key: str, chunks: int, *, is_finished: bool) -> None:
    """Append so many chunks, and an end."""
    with Redis.from_url(redis_url) as redis:
        for first in range(0, chunks, _AT_ONCE):
            last = min(chunks, first + _AT_ONCE) - 1
            ends = int(is_finished and last == chunks - 1)
            redis.eval(_CHUNKS, 1, key, str(first), str(last), str(ends), str(_TTL))
        _let_it_rewrite(redis)


def fill_conversations(redis_url: str, conversations: int) -> None:
    """Add so many conversations in which nothing goes on."""
    with Redis.from_url(redis_url) as redis:
        for first in range(0, conversations, _AT_ONCE):
            last = min(conversations, first + _AT_ONCE) - 1
            redis.eval(_CONVERSATIONS, 0, str(first), str(last), str(_TTL))
        _let_it_rewrite(redis)


def _let_it_rewrite(redis: Redis) -> None:
    """Let Redis rewrite its file now: else it may while it is measured, when the file has grown enough."""
    with contextlib.suppress(ResponseError):
        # Refused where it has begun by itself.
        redis.bgrewriteaof()
    until = time.monotonic() + _REWRITE_TIMEOUT
    while time.monotonic() < until:
        state = redis.info("persistence")
        if not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]):
            return
        time.sleep(_POLL)


def main() -> None:
    """Write one finished stream."""
    redis_url, key, chunks = sys.argv[1:]
    fill_stream(redis_url, key, int(chunks), is_finished=True)
    say_outcome(sent=[int(chunks)])


if __name__ == "__main__":
    main()
