"""Puts an answer together from its events, right over resets."""

from __future__ import annotations

from dataclasses import dataclass

from clients.events import Done, EndStatus, Failed, Gap, Reset, StreamEvent, Text


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run said."""

    text: str
    #: A cancelled run's text is what it had said until then.
    status: EndStatus
    cursor: str | None


class AnswerText:
    """Collects the text of one run after the other."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._is_ended = False
        #: Whether entries of the run are missing, so that the text is not all of it.
        self.has_gap = False

    @property
    def text(self) -> str:
        """What the run has said so far; after its end, what it said."""
        return "".join(self._parts)

    def take(self, event: StreamEvent) -> None:
        """Take the next event. The first one after a run's end begins the next run."""
        if self._is_ended or isinstance(event, Reset):
            self._parts.clear()
            self._is_ended = self.has_gap = False
        match event:
            case Text(text):
                self._parts.append(text)
            case Gap():
                self.has_gap = True
            case Done() | Failed():
                self._is_ended = True
