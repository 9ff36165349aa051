"""What the chat writes: the answer to stdout, notes to stderr; or all of it as JSON Lines."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final, Protocol, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text as RichText

from clients.chat.shown_text import ShownText, ToWrite
from clients.errors import ClientError
from clients.events import Done, EndStatus, Failed, Gap, Reset, StreamEvent, Text, ToolCall, ToolResult
from clients.runs import Run

#: What would move the cursor of a terminal, or worse: control characters but for line ends and tabs.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: A note about a tool is one line of at most so many characters.
_NOTE_LENGTH: Final = 100
_SPACE: Final = re.compile(r"\s+")


class Screen(Protocol):
    """Where the chat writes. Its methods may block on a slow reader."""

    #: Whether what was written is not exactly the answer.
    is_inexact: bool

    def started(self, run: Run) -> None:
        """A run was started."""

    def show(self, event: StreamEvent) -> None:
        """An event came."""

    def note(self, text: str) -> None:
        """Say something that is not of the agent."""

    def failed(self, error: ClientError) -> None:
        """Nothing more comes, and why."""

    def close(self) -> None:
        """Nothing more is written for now."""


class PlainScreen:
    """The bare text, as it comes, and notes. In a pipe the text is byte for byte the answer."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._notes = Console(file=err, highlight=False, soft_wrap=True)
        self._is_terminal = out.isatty()
        #: Where both are one terminal, a note must not begin in the middle of a line of text.
        self._shares_lines = self._is_terminal and self._notes.is_terminal
        self._at_line_start = True
        self._shown = ShownText()
        self._status: Status | None = None
        self.is_inexact = False

    def started(self, run: Run) -> None:
        """Show that somebody works."""
        self._shown = ShownText()
        self._wait_for(f"{_one_line(run.agent)} is working …")

    def show(self, event: StreamEvent) -> None:
        """Text as it comes; the rest as notes of one line."""
        match event:
            case Text(text):
                self._write(self._shown.take(text))
            case Reset():
                self._shown.reset()
            case Gap(reason):
                self.is_inexact = True
                self.note(f"Part of the answer is no longer retained: {reason}.")
            case ToolCall(name=name, arguments=arguments):
                self.note(self._shortened(f"→ {name}({_arguments(arguments)})"))
                self._wait_for(f"{_one_line(name)} …")
            case ToolResult(result=result):
                self.note(self._shortened(f"← {_plain(result)}"))
            case Done(status=status):
                self._end()
                if status is EndStatus.CANCELLED:
                    self.note("The run was stopped.")
            case Failed(message=message):
                self._end()
                self.note(message)

    def note(self, text: str) -> None:
        """A dim line on stderr."""
        self.close()
        self._break_line()
        self._notes.print(RichText(_one_line(text), style="dim"))

    def failed(self, error: ClientError) -> None:
        """A red line on stderr."""
        self._end()
        self._notes.print(RichText(f"{_one_line(error.message)} [{error.code}]", style="red"))

    def close(self) -> None:
        """Take away what shows that somebody works."""
        status, self._status = self._status, None
        if status is not None:
            status.stop()

    def _end(self) -> None:
        self._write(self._shown.end())
        self.close()
        if self._is_terminal:
            self._break_line()
        self._shown = ShownText()

    def _wait_for(self, text: str) -> None:
        self.close()
        if self._shares_lines and self._at_line_start:
            self._status = self._notes.status(RichText(text, style="dim"))
            self._status.start()

    def _write(self, piece: ToWrite) -> None:
        if piece.replaces:
            self.is_inexact = True
            self.note("The answer was replaced. This is the right one, from its start:")
            if not self._is_terminal:
                self._out.write("\n\n")
        if piece.text:
            self.close()
            self._out.write(_CONTROLS.sub("\ufffd", piece.text) if self._is_terminal else piece.text)
            self._at_line_start = piece.text.endswith("\n")
        self._out.flush()

    def _shortened(self, text: str) -> str:
        line = RichText(_one_line(text))
        line.truncate(
            min(_NOTE_LENGTH, self._notes.width - 1) if self._shares_lines else _NOTE_LENGTH,
            overflow="ellipsis",
        )
        return line.plain

    def _break_line(self) -> None:
        if not self._at_line_start and self._is_terminal:
            self._out.write("\n")
            self._out.flush()
            self._at_line_start = True


class JsonScreen:
    """One JSON object a line, for programs: nothing is left out, resets included."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self.is_inexact = False

    def started(self, run: Run) -> None:
        """The ids of the run."""
        self._write(
            {
                "event": "run",
                "agent": run.agent,
                "conversation_id": run.conversation_id,
                "run": run.run,
            }
        )

    def show(self, event: StreamEvent) -> None:
        """The event with its fields."""
        self.is_inexact |= isinstance(event, Gap)
        self._write(event.as_json())

    def note(self, text: str) -> None:
        """A line on stderr."""
        self._err.write(f"{_one_line(text)}\n")
        self._err.flush()

    def failed(self, error: ClientError) -> None:
        """The last line."""
        told = {"event": "error", "code": error.code, "message": error.message, "cursor": error.cursor}
        self._write(told)

    def close(self) -> None:
        """Every line is whole already."""

    def _write(self, content: dict[str, Any]) -> None:
        self._out.write(json.dumps(content, ensure_ascii=False) + "\n")
        self._out.flush()


def make_screen(*, as_json: bool) -> Screen:
    """The screen that was asked for, on this process's stdout and stderr."""
    if not sys.stdout.isatty() and hasattr(sys.stdout, "reconfigure"):
        # A pipe carries the text as it is, whatever the system's own encoding and line ends are.
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")
    return JsonScreen(sys.stdout, sys.stderr) if as_json else PlainScreen(sys.stdout, sys.stderr)


def _arguments(arguments: Any) -> str:
    """The arguments of a call as a programmer would write them."""
    parsed = arguments
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
    if not isinstance(parsed, dict):
        return "" if parsed is None else _plain(parsed)
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in parsed.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _one_line(text: str) -> str:
    return _CONTROLS.sub("", _SPACE.sub(" ", text)).strip()
