"""Answers of a replaying server: a short run, its parts, and what may be in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streaming.sse import encode_event, encode_retry
from tests.clients.replay_server import Behaviour, Recording, Told

ANSWER: Final = ("Tokyo ", "in ", "3 days 🗼")
TEXT: Final = "".join(ANSWER)
RECORDING: Final = Recording.saying(*ANSWER)
JSON: Final = {"content-type": "application/json"}
HTML: Final = Told(b"<html>Sign in to the hotel's network</html>", headers={"content-type": "text/html"})


def first_then_honest(*troubles: Told, recording: Recording = RECORDING) -> Behaviour:
    """Troubles, one for each request, then the truth."""
    left: Iterator[Told] = iter(troubles)
    return lambda asked: next(left, None) or recording.answer(asked)


def refusal(status: int, code: str, **headers: str) -> Told:
    """An error as the service answers it."""
    return Told(f'{{"error": "A sentence.", "code": "{code}"}}'.encode(), f"{status} X", {**JSON, **headers})


def part(count: int, *more: bytes, hangs: bool = False) -> Told:
    """So many events, then something else."""
    blocks = [block for _, block in RECORDING.events[:count]]
    return Told(b"".join([encode_retry(0), *blocks, *more]), hangs=hangs)


def ending(event: str, data: str, after: int = 2) -> Recording:
    """A run that says something and ends so."""
    return Recording([*RECORDING.events[:after], ("9-0", encode_event(event, data, entry_id="9-0"))])


RESET: Final = encode_event("reset", '{"reason": "again"}')
GAP: Final = encode_event("gap", '{"reason": "gone"}')


ACCEPTED: Final = Told(
    b'{"status": "accepted", "conversation_id": "c", "correlation_id": "r", "stream_token": "t.o.k"}',
    "202 Accepted",
    JSON,
)
