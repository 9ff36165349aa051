"""What goes to the terminal: with Rich where that is installed and somebody looks, else plain lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TextIO

#: What would move the cursor of a terminal, or worse: control characters, line ends and tabs among them.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
#: In what may have several lines, these stay.
_CONTROLS_IN_TEXT: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Styled:
    """A piece of a line. Control characters in it are shown as ``�``."""

    text: str
    #: ``dim``, ``strong``, ``good``, ``warn``, ``bad`` or ``live``.
    style: str = ""


Line = Sequence["Styled | str"]


class Screen(Protocol):
    """Where things are shown."""

    def line(self, *parts: Styled | str) -> None:
        """A line."""

    def table(self, columns: Sequence[str], rows: Sequence[Line]) -> None:
        """Rows in columns; a name that begins with ``>`` is of a column of numbers."""

    def text(self, text: str) -> None:
        """What was said, in as many lines as it has."""


def make_pipe_safe(out: TextIO) -> None:
    """A pipe carries the text as it is, whatever the system's own encoding and line ends are."""
    if not out.isatty() and hasattr(out, "reconfigure"):
        out.reconfigure(encoding="utf-8", errors="replace", newline="\n")


class PlainScreen:
    """Lines and columns of text."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def line(self, *parts: Styled | str) -> None:
        """A line."""
        self._out.write("".join(plain(part) for part in parts).rstrip() + "\n")
        self._out.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Line]) -> None:
        """Columns as wide as what is in them."""
        names = [name.removeprefix(">").upper() for name in columns]
        cells = [names, *([plain(cell) for cell in row] for row in rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
        for row in cells:
            padded = [
                cell.rjust(width) if name.startswith(">") else cell.ljust(width)
                for name, cell, width in zip(columns, row, widths, strict=True)
            ]
            self.line("  ".join(padded))

    def text(self, text: str) -> None:
        """Indented, so that it is told from what the inspector says."""
        for line in lines_of_text(text):
            self._out.write(f"    │ {line}".rstrip() + "\n")
        self._out.flush()


def plain(part: Styled | str) -> str:
    """A piece of a line without its style, and without what would move a terminal's cursor."""
    return _CONTROLS.sub("�", part.text if isinstance(part, Styled) else part)


def lines_of_text(text: str) -> list[str]:
    """The lines of what was said, without what would move a terminal's cursor."""
    return _CONTROLS_IN_TEXT.sub("�", text).split("\n")
