"""Text that is written where it can't be taken back: what comes again after a reset is written once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToWrite:
    """What is to be written next."""

    text: str = ""
    #: What was written before is not the beginning of the answer: ``text`` is all of it so far.
    replaces: bool = False


class ShownText:
    """One answer as it is written. Most resets bring the same text again, and nobody sees them."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        #: What was written before the reset, and how much of it has come again; ``None``: no reset.
        self._before: str | None = None
        self._again = 0

    def reset(self) -> None:
        """The answer starts again."""
        written = "".join(self._parts) if self._before is None else self._before
        self._before, self._again = written, 0
        self._parts.clear()

    def take(self, text: str) -> ToWrite:
        """The next piece of the answer."""
        self._parts.append(text)
        if self._before is None:
            return ToWrite(text)
        place = self._again
        expected = self._before[place : place + len(text)]
        if not text.startswith(expected):
            return self._replace()
        self._again += len(expected)
        if self._again < len(self._before):
            return ToWrite()
        self._before = None
        # From here on the parts are what was written.
        return ToWrite(text[len(expected) :])

    def end(self) -> ToWrite:
        """The answer is complete."""
        if self._before is not None and self._again < len(self._before):
            return self._replace()
        return ToWrite()

    def _replace(self) -> ToWrite:
        self._before = None
        return ToWrite("".join(self._parts), replaces=True)
