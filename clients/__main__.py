"""The terminal chat: ``python -m clients "Plan a 3-day trip to Tokyo"``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from clients.chat.options import ChatOptions, parse_options
from clients.chat.screen import Screen, make_screen
from clients.chat.turns import ExitStatus, Turns
from clients.errors import InvalidOption
from clients.patience import Patience, Reconnect
from clients.stream_client import StreamClient

with contextlib.suppress(ImportError):
    # Gives the prompt editing and a history; there is none for Windows.
    import readline  # noqa: F401 - importing it is its use

#: Characters of a message that are read from a pipe: the service takes a mebibyte.
MAX_MESSAGE: Final = 1024 * 1024
PROMPT: Final = "> "


def main(arguments: Sequence[str] | None = None) -> int:
    """Chat. Returns the process's exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, os.environ)
    screen = make_screen(as_json=options.as_json)
    try:
        return _chat(options, screen)
    except InvalidOption as error:
        screen.failed(error)
        return ExitStatus.UNUSABLE
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.NOBODY_READS
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


def _chat(options: ChatOptions, screen: Screen) -> int:
    # A person types between the turns, while the loop stands still and no connection is open.
    with asyncio.Runner() as runner:
        turns = runner.run(_prepare(options, screen))
        try:
            return _take_turns(runner, turns, options, screen)
        finally:
            runner.run(turns.aclose())


async def _prepare(options: ChatOptions, screen: Screen) -> Turns:
    def tell(reconnect: Reconnect) -> None:
        turns.tell_reconnect(reconnect)

    client = StreamClient(
        options.url,
        api_key=options.key,
        stream_token=options.token,
        patience=Patience(give_up_after=options.patience),
        on_reconnect=tell,
    )
    turns = Turns(client, options, screen)
    return turns


def _take_turns(runner: asyncio.Runner, turns: Turns, options: ChatOptions, screen: Screen) -> int:
    is_interactive = sys.stdin.isatty() and sys.stdout.isatty() and not options.as_json
    message = options.message
    if message is None and options.resume is None and not is_interactive:
        message = sys.stdin.read(MAX_MESSAGE + 1).strip()
        if not message:
            raise InvalidOption("message", "nothing to say: give a message, or pipe one in.")
    status: int = ExitStatus.ANSWERED
    if message is not None:
        status = runner.run(turns.say(message))
    elif options.resume is not None:
        status = runner.run(turns.show_latest())
    if not is_interactive or status in (ExitStatus.UNUSABLE, ExitStatus.REFUSED, ExitStatus.AWAY):
        return status
    while not turns.was_left and (said := _ask()) is not None:
        if said:
            status = runner.run(turns.say(said))
    if turns.was_left:
        return status
    if turns.conversation_id is not None:
        screen.note(options.command_to_resume(turns.conversation_id))
    return ExitStatus.ANSWERED


def _ask() -> str | None:
    """What the person says next; ``None``: nothing more."""
    try:
        return input(PROMPT).strip()
    except (EOFError, KeyboardInterrupt):
        sys.stdout.write("\n")
        return None


if __name__ == "__main__":
    sys.exit(main())
