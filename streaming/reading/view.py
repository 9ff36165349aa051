"""Where a read stands, and what it shows of the entries that come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from streaming.entries import RESET, StreamChunk
from streaming.reading.span import Span
from streaming.reading.told import LOST_CODE, gap, reset
from streaming.telemetry import Telemetry
from streaming.text_blocks import Part, Place, TextBlock

#: Why a reader was told of a gap or reset, in telemetry.
CURSOR_GONE: Final = "cursor_gone"


class View:
    """One read's view of its stream: each entry once, and a word where one is missing."""

    __slots__ = ("_expected", "_follow", "_run", "_telemetry", "_to_first_terminal", "at_terminal", "cursor")

    def __init__(self, span: Span, telemetry: Telemetry, *, follow: bool) -> None:
        """Begin where the span does.

        Args:
            span: What is read.
            telemetry: Is told of gaps and resets.
            follow: Go on through later runs.
        """
        self._telemetry = telemetry
        self._run = span.run
        self._to_first_terminal = span.first_terminal
        self._follow = follow
        #: The last entry that came.
        self.cursor = span.start
        #: Whether it ended a run.
        self.at_terminal = False
        #: Of each run in progress: its attempt, and the sequence that should come next.
        self._expected: dict[str, Place] = {}
        if span.expected is not None:
            run, attempt, sequence = span.expected
            self._expected[run] = Place(attempt, sequence)

    def told_at_start(self, span: Span) -> list[Part]:
        """What the reader is told before the first entry; mostly nothing."""
        if span.gap:
            self._telemetry.gap_told(CURSOR_GONE)
            return [gap(self.cursor, "the cursor's entry is not retained: some after it may be missing")]
        if span.anew:
            self._telemetry.reset_told(CURSOR_GONE)
            return [reset(self.cursor, span.run, "the cursor's entry is gone: all of it comes again")]
        return []

    def is_next(self, block: TextBlock) -> bool:
        """Whether a block is one to show, as it is."""
        return self._run in (None, block.run) and self._goes_on(block)

    def _goes_on(self, block: TextBlock) -> bool:
        """Whether it begins where the last entry of its run ended, so far as that is known."""
        known = self._expected.get(block.run) if block.run is not None else None
        return known is None or (known.sequence == block.first_sequence and known.attempt == block.attempt)

    def pass_over(self, block: TextBlock) -> None:
        """Stand behind a block that is the next, and was shown."""
        if block.run is not None:
            self._expected[block.run] = block.end
        self.cursor = block.last
        self.at_terminal = False

    def show(self, batch: Sequence[Part]) -> tuple[list[Part], bool]:
        """The batch as this read shows it, up to its end; and whether that came."""
        shown: list[Part] = []
        for part in batch:
            if isinstance(part, TextBlock):
                self._show_block(part, shown)
                continue
            ends_here = self._show_chunk(part, shown)
            is_last = self._to_first_terminal or part is batch[-1]
            if ends_here and is_last and not self._follow:
                return shown, True
        return shown, False

    def _show_block(self, block: TextBlock, shown: list[Part]) -> None:
        """Show a block as a whole, where each of its chunks would be shown."""
        if self._run not in (None, block.run):
            self.cursor = block.last
        elif self._goes_on(block):
            self.pass_over(block)
            shown.append(block)
        else:
            for chunk in block:
                self._show_chunk(chunk, shown)

    def _show_chunk(self, chunk: StreamChunk, shown: list[Part]) -> bool:
        """Show a chunk, if it is to be shown; whether it ends its run."""
        if chunk.code != LOST_CODE:
            self.cursor = chunk.id
        if self._run is not None and chunk.run != self._run and chunk.code != LOST_CODE:
            return False
        expected = self._expected_at(chunk)
        if expected is not None and chunk.sequence is not None:
            if 0 < chunk.sequence < expected:
                # Shown already. Then a failover lost it, and its writer, who never had an answer, wrote
                # it once more.
                return False
            if chunk.sequence > expected:
                missing = f"entries {expected} to {chunk.sequence - 1} are no longer retained"
                self._telemetry.gap_told("hole")
                shown.append(gap(self.cursor, missing))
            elif chunk.sequence < expected:
                # Redis forgot the run, and with it that there was an attempt of this number.
                self._telemetry.reset_told("run_forgotten")
                shown.append(reset(self.cursor, chunk.run, "the run begins again"))
        if chunk.type == RESET:
            self._telemetry.reset_told("stored")
        shown.append(chunk)
        self.at_terminal = chunk.is_terminal
        return self.at_terminal

    def _expected_at(self, chunk: StreamChunk) -> int | None:
        """The sequence that should be here; ``None`` where a run, or one of its attempts, begins."""
        if chunk.run is None or chunk.sequence is None:
            return None
        known = self._expected.get(chunk.run)
        here = Place(chunk.attempt, chunk.sequence)
        if known == here and chunk.type is None and not chunk.is_terminal:
            # Nearly always: the next one.
            self._expected[chunk.run] = Place(chunk.attempt, chunk.sequence + 1)
            return chunk.sequence
        self._expected.pop(chunk.run, None)
        expected = None
        if known is not None and known.attempt == chunk.attempt and chunk.type != RESET:
            expected = known.sequence
        if not chunk.is_terminal:
            following = chunk.sequence + 1 if chunk.sequence == 0 else max(chunk.sequence + 1, expected or 0)
            self._expected[chunk.run] = Place(chunk.attempt, following)
        return expected
