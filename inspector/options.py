"""What the inspector is asked for: its arguments, and the settings that it shares with the service."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from streaming.entries import RunStatus
from streaming.environment import Environment, minutes
from streaming.redis_address import parse_redis_address
from streaming.settings import Settings

#: Keys of each server that are looked at to find conversations: some seconds' work.
MOST_KEYS: Final = 100_000
#: Conversations of a list: a screen or two.
LISTED: Final = 50
_MOST: Final = 1_000_000
_LONGEST_SPEED: Final = 1_000.0
_PROGRAM: Final = "python -m inspector"
_EPILOG: Final = """\
Redis is the one of REDIS_CONNECTION_STRING, or else the embedded one of the service that runs in this folder
(DATA_DIR, .data by default). A RECORDING is a conversation's id, or a file that export has written.

Nothing that was said, to or by an agent, is shown unless you say --text. Only replay writes anything.

Exit status: 0 all is well, 1 check has found something, 2 a value can't be used or nothing is there,
4 Redis is away, 130 Ctrl-C, 141 nobody reads the output any more.
"""


@dataclass(frozen=True, slots=True)
class InspectorSettings:
    """Where to look."""

    redis_url: str | None
    data_dir: Path
    stream_ttl: timedelta

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read them from the environment.

        Raises:
            SettingsError: a value can't be used.
        """
        env, default = Environment(environment), Settings()
        return cls(
            redis_url=env.read("REDIS_CONNECTION_STRING", _redis_url),
            data_dir=env.read("DATA_DIR", Path) or default.data_dir,
            stream_ttl=env.read("REDIS_STREAM_TTL_MINUTES", minutes) or default.stream_ttl,
        )


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted. Fields that a command does not have stay as they are here."""

    command: str
    #: A conversation's id, or a file.
    source: str | None = None
    as_json: bool = False
    with_text: bool = False
    run: str | None = None
    limit: int = LISTED
    most_keys: int = MOST_KEYS
    agent: str | None = None
    status: RunStatus | None = None
    forever: bool = False
    every: bool = False
    into: str | None = None
    speed: float = 1.0
    output: Path | None = None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the arguments.

    Raises:
        SystemExit: they can't be used, or help was asked for.
    """
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Look into the streams of the service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_list(commands)
    show = commands.add_parser("show", help="what happened in a conversation, run by run")
    _add_recording(show)
    follow = commands.add_parser("follow", help="the same while it happens, up to the end of the latest run")
    follow.add_argument("source", metavar="CONVERSATION")
    follow.add_argument("--forever", action="store_true", help="go on through later runs, until Ctrl-C")
    for each in (show, follow):
        each.add_argument("--run", help="only this run")
        each.add_argument("--text", action="store_true", dest="with_text", help="show what was said, too")
        each.add_argument("--json", action="store_true", dest="as_json", help="for programs")
    export = commands.add_parser("export", help="all that is stored, as JSON Lines; it holds what was said")
    _add_recording(export)
    export.add_argument("--output", type=Path, metavar="FILE", help="write it here, not to stdout")
    check = commands.add_parser("check", help="whether what has to hold does; exit status 1 where not")
    _add_recording(check, nargs="?")
    check.add_argument("--all", action="store_true", dest="every", help="every conversation")
    check.add_argument("--json", action="store_true", dest="as_json", help="findings as JSON Lines")
    _add_most_keys(check)
    _add_replay(commands)
    given: dict[str, Any] = {
        name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None
    }
    options = Options(**given)
    if options.command == "check" and (options.source is None) is not options.every:
        check.error("name a conversation or a file, or say --all")
    return options


def _add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="the conversations, the latest first")
    parser.add_argument("--limit", type=_count, metavar="N", help=f"so many (default: {LISTED})")
    parser.add_argument("--agent", help="only those of this agent")
    parser.add_argument(
        "--status", type=RunStatus, choices=list(RunStatus), help="only those whose latest run is there"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON Lines")
    _add_most_keys(parser)


def _add_replay(commands: Any) -> None:
    replay = commands.add_parser("replay", help="play what was recorded into a new conversation, at its pace")
    _add_recording(replay)
    replay.add_argument("--into", metavar="NEW", help="the new conversation's id (default: one is made)")
    replay.add_argument("--run", help="only this run")
    replay.add_argument("--agent", help="under this agent's name (default: the recorded one)")
    replay.add_argument(
        "--speed", type=_speed, metavar="N", help="so many times as fast (default: 1); 0: without pauses"
    )


def _add_recording(parser: Any, **options: Any) -> None:
    parser.add_argument("source", metavar="RECORDING", **options)


def _add_most_keys(parser: Any) -> None:
    parser.add_argument(
        "--most-keys",
        type=_count,
        metavar="N",
        help=f"keys of each server to look at, at most (default: {MOST_KEYS:,})",
    )


def _redis_url(value: str) -> str:
    parse_redis_address(value)
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:10]) <= _MOST):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 to {_MOST}")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed <= _LONGEST_SPEED:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0 to {_LONGEST_SPEED:.0f}")
    return speed
