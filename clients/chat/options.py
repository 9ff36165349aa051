"""What the terminal chat is asked for: its arguments and environment, read once."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

DEFAULT_URL: Final = "http://127.0.0.1:7071"
DEFAULT_AGENT: Final = "TravelPlanner"
#: A person at a terminal waits no longer for a service that is away, in seconds.
DEFAULT_PATIENCE: Final = 60.0
#: The longest patience, in seconds: a week.
_LONGEST_PATIENCE: Final = 604_800.0
_PROGRAM: Final = "python -m clients"
_EPILOG: Final = """\
Settings: AGENT_STREAM_URL, AGENT_STREAM_AGENT, AGENT_STREAM_KEY and AGENT_STREAM_TOKEN in the environment
take the place of the options. Other users of this machine can see options, so keep keys in the environment.

Ctrl-C stops the run; pressed twice it leaves the run going on, and says how to come back to it.

Exit status: 0 answered, 1 the run failed or was stopped by somebody else, 2 a value can't be used,
3 the key or token was refused, 4 the service is away, 5 the answer was replaced or has a gap,
130 Ctrl-C, 141 nobody reads the output any more.
"""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What is wanted."""

    message: str | None
    resume: str | None
    as_json: bool
    url: str
    agent: str
    patience: timedelta
    #: Never shown.
    key: str | None
    token: str | None
    #: Options that a later call needs as well: those that were not in the environment.
    repeated: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ChatOptions({self.url!r}, {self.agent!r})"

    def command_to_resume(self, conversation_id: str) -> str:
        """The command that comes back to a conversation. It holds no key."""
        return shlex.join([*_PROGRAM.split(), *self.repeated, "--resume", conversation_id])


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> ChatOptions:
    """Read arguments and environment.

    Raises:
        SystemExit: they can't be used, or help was asked for.
    """
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Chat with an agent of the streaming service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("message", nargs="?", help="what to say; left out: ask, or read it from a pipe")
    parser.add_argument(
        "--resume", metavar="CONVERSATION", help="go on in a conversation; alone: show its end"
    )
    parser.add_argument("--json", action="store_true", help="write events as JSON Lines")
    parser.add_argument("--url", help=f"of the service (default: {DEFAULT_URL})")
    parser.add_argument("--agent", help=f"by name (default: {DEFAULT_AGENT})")
    parser.add_argument("--key", help="an API key")
    parser.add_argument("--token", help="the conversation's stream token")
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=DEFAULT_PATIENCE,
        metavar="SECONDS",
        help=f"how long to try while nothing comes (default: {DEFAULT_PATIENCE:.0f})",
    )
    parsed = parser.parse_args(arguments)
    given = {name: value for name in ("url", "agent") if (value := getattr(parsed, name))}
    return ChatOptions(
        message=parsed.message,
        resume=parsed.resume,
        as_json=parsed.json,
        url=parsed.url or environment.get("AGENT_STREAM_URL") or DEFAULT_URL,
        agent=parsed.agent or environment.get("AGENT_STREAM_AGENT") or DEFAULT_AGENT,
        patience=timedelta(seconds=parsed.patience),
        key=parsed.key or environment.get("AGENT_STREAM_KEY") or None,
        token=parsed.token or environment.get("AGENT_STREAM_TOKEN") or None,
        repeated=tuple(part for name, value in given.items() for part in (f"--{name}", value)),
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_PATIENCE:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected seconds, above 0, at most {_LONGEST_PATIENCE:.0f}"
        )
    return seconds
