"""The terminal chat as a program: in pipes, at a terminal, with Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from streaming.sse import encode_event
from tests.clients.replay_server import Recording, Told, replaying
from tests.clients.told import ACCEPTED, GAP, RECORDING, RESET, TEXT, refusal
from tests.service import PATIENCE, ROOT, TRIP, Service, environment, eventually, free_port

AGENT: Final = "TravelPlanner"
LEFT: Final = re.compile(r"python -m clients .*--resume (\w+)")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "clients", *arguments]


def surroundings(**settings: str) -> dict[str, str]:
    return {**environment(Path(), settings), "TERM": "xterm", "COLUMNS": "100"}


async def chat(*arguments: str, stdin: bytes = b"", **settings: str) -> tuple[int, str, str]:
    """Run it in pipes: its exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=ROOT,
        env=surroundings(**settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


async def test_in_a_pipe(service: Service, http: httpx.AsyncClient) -> None:
    """In a pipe stdout has exactly the answer, and stderr the tool calls as notes of one line."""
    status, out, err = await chat(TRIP, "--url", service.url)
    assert status == 0
    _, listed, _ = await chat("--json", AGENT_STREAM_URL=service.url, stdin=TRIP.encode())
    lines = [json.loads(line) for line in listed.splitlines()]
    assert lines[0]["event"] == "run"
    assert lines[-1]["event"] == "done"
    assert "".join(line["text"] for line in lines if line["event"] == "text") == out
    report = await http.get(f"/api/agents/{AGENT}/run/{lines[0]['conversation_id']}")
    assert report.json()["response"] == out
    notes = err.splitlines()
    assert len(notes) == 4
    assert [note[0] for note in notes] == ["→", "→", "←", "←"]
    assert 'get_weather_forecast(destination="Tokyo"' in err


async def test_a_message_from_a_pipe_in_a_known_conversation(service: Service) -> None:
    """A message may come from stdin; ``--resume`` takes the next turn, or shows the last."""
    _, listed, _ = await chat("--json", "Tell me a joke", "--url", service.url)
    conversation = json.loads(listed.splitlines()[0])["conversation_id"]
    status, second, _ = await chat("--resume", conversation, TRIP, "--url", service.url)
    assert (status, second[:1]) == (0, "#")
    status, again, _ = await chat("--resume", conversation, "--url", service.url)
    assert (status, again) == (0, second)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("Hello", "--agent", "Nobody"), 2, "There is no such agent"),
        (("--resume", "nobody"), 2, "There is no stream for that conversation"),
        (("Hello", "--url", "ftp://x"), 2, "base_url: expected an address"),
        (("Hello", "--patience", "-1"), 2, "got '-1', expected seconds"),
        ((), 2, "nothing to say"),
        (("Hello", "--key", "bad key"), 2, "api_key: expected visible ASCII"),
    ],
)
async def test_values_that_can_not_be_used(
    service: Service, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """What can't be used is said in a sentence, with exit status 2 and no stack trace."""
    got, out, err = await chat(*arguments, AGENT_STREAM_URL=service.url)
    assert (got, out) == (status, "")
    assert said in err
    assert "Traceback" not in err
    assert "bad key" not in err


async def test_service_that_is_away() -> None:
    """A service that is away is waited for as long as the patience lasts: exit status 4."""
    status, out, err = await chat("Hello", "--patience", "0.5", "--url", f"http://127.0.0.1:{free_port()}")
    assert (status, out) == (4, "")
    assert "Nothing came from the service" in err


async def replayed(*events: tuple[str | None, bytes], told: Told | None = None) -> tuple[int, str, str]:
    """Chat with a server that has this stream."""
    recording = Recording(events)

    def behave(asked: Any) -> Told:
        return told or (ACCEPTED if asked.method == "POST" else recording.answer(asked))

    async with replaying(behave) as server:
        return await chat("Hello", "--url", server.url)


DONE: Final = RECORDING.events[-1]


async def test_a_reset_that_brings_the_same_text() -> None:
    """What comes again after a reset is written once: the output is exactly the answer."""
    again = [("5-0", encode_event("message", TEXT, entry_id="5-0")), ("6-0", DONE[1].replace(b"3-1", b"6-0"))]
    assert await replayed(*RECORDING.events[:2], (None, RESET), *again) == (0, TEXT, "")


async def test_a_reset_that_brings_another_text() -> None:
    """Where the answer was replaced the output says so, has the right one whole, and the exit status is 5."""
    other = [
        ("5-0", encode_event("message", "Kyoto", entry_id="5-0")),
        ("6-0", DONE[1].replace(b"3-1", b"6-0")),
    ]
    status, out, err = await replayed(*RECORDING.events[:2], (None, RESET), *other)
    assert (status, out) == (5, "Tokyo in \n\nKyoto")
    assert "The answer was replaced" in err


async def test_other_ends() -> None:
    """A gap, a failure and a refused key have exit statuses of their own; what there is is written."""
    status, out, err = await replayed(RECORDING.events[0], (None, GAP), *RECORDING.events[2:])
    assert (status, out) == (5, "Tokyo 3 days 🗼")
    assert "no longer retained" in err
    failed = encode_event("error", '{"code": "agent_failed", "message": "It broke."}', entry_id="9-0")
    assert await replayed(RECORDING.events[0], ("9-0", failed)) == (1, "Tokyo ", "It broke. [agent_failed]\n")
    status, out, err = await replayed(told=refusal(401, "unauthorized"))
    assert (status, out, err) == (3, "", "A sentence. [unauthorized]\n")


async def test_nobody_reads_any_more(service: Service) -> None:
    """When the pipe's reader leaves, it ends quietly; the run goes on."""
    arguments = " ".join(command(f"'{TRIP}'", "--url", service.url))
    process = await asyncio.create_subprocess_shell(
        f"{arguments} | head -c 5; exit ${{PIPESTATUS[0]}}",
        cwd=ROOT,
        env=surroundings(),
        executable="/bin/bash",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, len(out)) == (141, 5)
    assert "Error" not in err.decode()


class Terminal:
    """The program at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._side, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            env=surroundings(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - no thread of this process holds a lock it needs
        )
        os.close(theirs)
        self.seen = ""
        #: How much of it the test has waited for.
        self._read = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._side, text.encode())

    async def until(self, text: str) -> str:
        """Wait until it has written this; what it wrote since the last time."""
        loop = asyncio.get_running_loop()
        start = self._read
        async with asyncio.timeout(PATIENCE):
            while (place := self.seen.find(text, start)) < 0:
                readable = asyncio.Event()
                loop.add_reader(self._side, readable.set)
                try:
                    await readable.wait()
                    self.seen += os.read(self._side, 65_536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended before {text!r}: {self.seen!r}") from None
                finally:
                    loop.remove_reader(self._side)
        self._read = place + len(text)
        return self.seen[start : self._read]

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._side)


def _take_terminal() -> None:
    import fcntl  # noqa: PLC0415 - there is none for Windows
    import termios  # noqa: PLC0415

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """The program at a terminal, killed at the end."""
    made = Terminal(*arguments)
    try:
        yield made
    finally:
        made.close()


async def test_several_turns_at_a_terminal(service: Service) -> None:
    """At a terminal it asks for the next turn after each answer, in the same conversation, until Ctrl-D."""
    with terminal("Tell me a joke", "--url", service.url) as screen:
        said = await screen.until("\n> ")
        assert "suitcases" in said
        screen.type(f"{TRIP}\n")
        said = await screen.until("\n> ")
        assert "→ get_weather_forecast(" in said
        assert "Tokyo" in said
        screen.type("\x04")
        await screen.until("--resume")
        assert await asyncio.to_thread(screen.process.wait, PATIENCE) == 0


async def run_status(http: httpx.AsyncClient, conversation: str) -> str:
    return str((await http.get(f"/api/agents/{AGENT}/run/{conversation}")).json()["status"])


async def test_interrupted_once(slow_service: Service, slow_http: httpx.AsyncClient) -> None:
    """Ctrl-C stops the run: its status is Canceled, and the next turn can be taken."""
    with terminal(TRIP, "--url", slow_service.url) as screen:
        await screen.until("Tokyo")
        screen.type("\x03")
        await screen.until("The run was stopped.")
        await screen.until("> ")
        screen.type("\x04")
        await screen.until("--resume")
        assert await asyncio.to_thread(screen.process.wait, PATIENCE) == 0
        conversation = LEFT.search(screen.seen)
    assert conversation is not None
    assert await run_status(slow_http, conversation[1]) == "Canceled"


async def test_interrupted_twice(slow_service: Service, slow_http: httpx.AsyncClient) -> None:
    """Ctrl-C twice leaves the run going on and says how to come back; coming back shows it from its start."""
    process = await asyncio.create_subprocess_exec(
        *command(TRIP, "--url", slow_service.url),
        cwd=ROOT,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        first = await process.stdout.readexactly(2)
        process.send_signal(signal.SIGINT)
        while b"Ctrl-C again" not in await process.stderr.readline():
            continue
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert process.returncode == 130
    left = LEFT.search(err.decode())
    assert left is not None
    assert f"--url {slow_service.url}" in left[0]
    assert await run_status(slow_http, left[1]) == "Running"
    await slow_http.delete(f"/api/agents/{AGENT}/run/{left[1]}")

    async def has_stopped() -> bool:
        return await run_status(slow_http, left[1]) == "Canceled"

    await eventually(has_stopped, "the run is stopped")
    status, again, told = await chat("--resume", left[1], "--url", slow_service.url)
    assert again.startswith((first + out).decode())
    assert status == 1
    assert "The run was stopped." in told


async def test_controls_never_reach_the_terminal() -> None:
    """What an agent says can't move the terminal's cursor or worse; a pipe gets it as it is."""
    evil = "a\x1b]0;title\x07b\x1b[2Jc\r\x9b"
    recording = Recording(
        [
            ("1-0", encode_event("message", evil, entry_id="1-0")),
            ("2-0", encode_event("done", "[DONE]", entry_id="2-0")),
        ]
    )
    sent = evil.replace("\r", "\n")

    async with replaying(
        lambda asked: ACCEPTED if asked.method == "POST" else recording.answer(asked)
    ) as server:
        assert (await chat("Hello", "--url", server.url))[1] == sent
        with terminal("Hello", "--url", server.url) as screen:
            said = await screen.until("> ")
    assert "a\ufffd]0;title\ufffdb\ufffd[2Jc" in said
    assert "\x1b]0;" not in said
