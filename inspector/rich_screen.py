"""The screen of a terminal, with Rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from inspector.screen import Line, Styled, lines_of_text, plain

#: What a style looks like.
_STYLES: Final = {
    "": "",
    "dim": "dim",
    "strong": "bold",
    "good": "green",
    "warn": "yellow",
    "bad": "red",
    "live": "cyan",
}


class RichScreen:
    """The same with colours, and columns that fit the terminal."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=False)

    def line(self, *parts: Styled | str) -> None:
        """A line, wrapped where the terminal ends."""
        self._console.print(RichText.assemble(*map(_rich, parts)))

    def table(self, columns: Sequence[str], rows: Sequence[Line]) -> None:
        """A table without lines."""
        table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in columns:
            # Ids are to be copied, so they are never cut.
            table.add_column(
                name.removeprefix(">"),
                justify="right" if name.startswith(">") else "left",
                no_wrap=name != "what",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(RichText.assemble(_rich(cell)) for cell in row))
        self._console.print(table)

    def text(self, text: str) -> None:
        """Indented."""
        for line in lines_of_text(text):
            self._console.print(RichText(f"    │ {line}"))


def _rich(part: Styled | str) -> tuple[str, str]:
    return plain(part), _STYLES[part.style] if isinstance(part, Styled) else ""
