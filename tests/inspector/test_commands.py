"""The inspector as a program, beside a running service: it finds the embedded Redis, looks, and replays."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from hosting.embedded.redis_process import find_running
from tests.service import (
    PATIENCE,
    ROOT,
    Service,
    environment,
    eventually,
    finished_run,
    free_port,
    read_plain,
    start_run,
)

#: What nobody may be shown who did not ask for it.
SECRET: Final = "Barcelona"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "inspector", *arguments]


def surroundings(service: Service | None, **settings: str) -> dict[str, str]:
    """The settings of a program beside the service."""
    given = {"REDIS_CONNECTION_STRING": service.redis_url} if service is not None else {}
    return environment(Path("nowhere"), {**given, "COLUMNS": "120", **settings})


async def inspect(
    service: Service | None, *arguments: str, status: int = 0, **settings: str
) -> tuple[str, str]:
    """Run a command; what it wrote to stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=ROOT,
        env=surroundings(service, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == status, (out, err)
    return out.decode(), err.decode()


@pytest.fixture
async def finished(http: httpx.AsyncClient) -> dict[str, Any]:
    """A run that went well, in a conversation of its own."""
    return await finished_run(http, f"Plan a 1-day trip to {SECRET}", conversation_id=uuid4().hex)


@pytest.fixture
async def foreign(service_redis: Redis) -> AsyncIterator[str]:
    """A stream that somebody else writes, which ends."""
    conversation = f"foreign-{uuid4().hex}"
    await service_redis.xadd(f"agent-stream:{conversation}", {"text": "\x1b[2JHi", "sequence": "0"})
    await service_redis.xadd(f"agent-stream:{conversation}", {"text": "", "done": "true"})
    yield conversation
    await service_redis.delete(f"agent-stream:{conversation}")


async def test_nothing_that_was_said_is_shown_unless_asked_for(
    service: Service, finished: dict[str, Any]
) -> None:
    """list, show and follow tell lengths and names; with --text they tell what was said too."""
    conversation = finished["conversation_id"]
    quiet = [
        await inspect(service, *arguments)
        for arguments in (
            ("list",),
            ("list", "--json"),
            ("show", conversation),
            ("show", conversation, "--json"),
            ("follow", conversation),
            ("follow", conversation, "--json"),
            ("check", conversation),
        )
    ]
    assert [written for written in quiet if SECRET in str(written)] == []
    assert [written for written in quiet if written[1]] == []
    shown, _ = await inspect(service, "show", conversation, "--text")
    assert shown.count(SECRET) > 3
    told, _ = await inspect(service, "show", conversation, "--json", "--text")
    (run,) = json.loads(told)["runs"]
    assert finished["response"] in "".join(step["text"] for step in run["steps"] if step["kind"] == "text")


async def test_show_tells_the_steps(service: Service, finished: dict[str, Any]) -> None:
    """A run that went well is shown with its tools, its text and its end, and without a cause."""
    shown, _ = await inspect(service, "show", finished["conversation_id"])
    for told in (finished["correlation_id"], "TravelPlanner", "get_weather_forecast", "completed"):
        assert told in shown
    assert "⇒" not in shown


async def test_list_is_newest_first(service: Service, http: httpx.AsyncClient) -> None:
    """Conversations are listed the latest first, with their latest run; filters and limits hold."""
    older, newer = [(await finished_run(http, "Tell me a joke"))["conversation_id"] for _ in range(2)]
    rows = [json.loads(line) for line in (await inspect(service, "list", "--json"))[0].splitlines()]
    ids = [row["conversation_id"] for row in rows]
    assert ids.index(newer) < ids.index(older)
    row = rows[ids.index(newer)]
    assert (row["agent"], row["status"], row["producer"]) == ("TravelPlanner", "completed", "-")
    assert 0 < row["ttl_ms"] <= 600_000
    only, _ = await inspect(service, "list", "--json", "--limit", "1", "--agent", "TravelPlanner")
    assert [json.loads(line)["conversation_id"] for line in only.splitlines()] == [newer]
    assert "0 conversations" in (await inspect(service, "list", "--agent", "Nobody"))[0]


async def test_check_says_what_is_wrong(service: Service, service_redis: Redis, foreign: str) -> None:
    """Check is silent about sound streams; a finding is told, with exit status 1, by --all as well."""
    said, _ = await inspect(service, "check", foreign, status=1)
    assert "[no_ttl]" in said
    assert "1 finding in 1 conversation" in said
    said, _ = await inspect(service, "check", "--all", "--json", status=1)
    findings = [json.loads(line) for line in said.splitlines()]
    assert [finding["code"] for finding in findings if finding["conversation_id"] == foreign] == ["no_ttl"]
    await service_redis.expire(f"agent-stream:{foreign}", 600)
    assert "nothing wrong in 1 conversation" in (await inspect(service, "check", foreign))[0]


async def test_a_recording_is_replayed(
    service: Service, http: httpx.AsyncClient, finished: dict[str, Any], tmp_path: Path
) -> None:
    """What export writes can be shown, checked and replayed; the new run is read over HTTP like any other."""
    conversation, path = finished["conversation_id"], str(tmp_path / "trip.jsonl")
    await inspect(service, "export", conversation, "--output", path)
    assert (
        (await inspect(service, "export", conversation))[0].splitlines()[1:]
        == Path(  # noqa: ASYNC240
            path
        )
        .read_text(encoding="utf-8")
        .splitlines()[1:]
    )
    # A file needs no Redis.
    assert "nothing wrong" in (await inspect(None, "check", path))[0]
    assert conversation in (await inspect(None, "show", path))[0]
    new = uuid4().hex
    said, _ = await inspect(service, "replay", path, "--into", new, "--speed", "0")
    assert f"Playing into {new}" in said
    assert await read_plain(http, new) == finished["response"]
    status = (await http.get(f"/api/agents/TravelPlanner/run/{new}")).json()
    assert (status["status"], status["response"]) == ("Completed", finished["response"])
    assert "nothing wrong" in (await inspect(service, "check", new))[0]
    _, complaint = await inspect(service, "replay", path, "--into", new, status=2)
    assert "not there yet" in complaint
    _, complaint = await inspect(service, "export", conversation, "--output", path, status=2)
    assert "a new file" in complaint


async def test_the_embedded_redis_is_found(slow_service: Service, slow_http: httpx.AsyncClient) -> None:
    """Without an address, the Redis of the service that runs on the data folder is looked into."""
    data_dir = slow_service.log_path.with_suffix("")
    run = await start_run(slow_http)
    assert await find_running(data_dir) == slow_service.redis_url
    said, _ = await inspect(None, "list", "--status", "running", DATA_DIR=str(data_dir))
    assert run["conversation_id"] in said
    assert "alive" in said
    await slow_http.delete(run["links"]["status"])


async def test_a_run_is_followed_and_left(slow_service: Service, slow_http: httpx.AsyncClient) -> None:
    """A run in progress is told of while it goes on; Ctrl-C leaves it going on, without a complaint."""
    run = await start_run(slow_http)
    process = await asyncio.create_subprocess_exec(
        *command("follow", run["conversation_id"]),
        cwd=ROOT,
        env=surroundings(slow_service),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while b" text " not in await process.stdout.readline():
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        _, complaints = await process.communicate()
    assert (process.returncode, complaints) == (130, b"")
    assert (await slow_http.get(run["links"]["status"])).json()["status"] == "Running"
    await slow_http.delete(run["links"]["status"])

    async def has_ended() -> bool:
        return bool((await slow_http.get(run["links"]["status"])).json()["status"] == "Canceled")

    await eventually(has_ended, "the run is cancelled")
    said, _ = await inspect(slow_service, "follow", run["conversation_id"])
    assert "Somebody asked for it to be stopped" in said


@pytest.mark.parametrize(
    ("arguments", "settings", "status", "complaint"),
    [
        (("show", "no-such-conversation"), {}, 2, "Nothing is stored of no-such-conversation"),
        (("show", "not valid"), {}, 2, "conversation_id is 'not valid': expected"),
        (("check",), {}, 2, "name a conversation or a file, or say --all"),
        (("replay", "x", "--speed", "-1"), {}, 2, "got '-1', expected a number from 0"),
        (("list",), {"REDIS_STREAM_TTL_MINUTES": "-1"}, 2, "REDIS_STREAM_TTL_MINUTES: got '-1'"),
        (("list",), {"REDIS_CONNECTION_STRING": "nonsense"}, 2, "REDIS_CONNECTION_STRING: "),
        (("list",), {"REDIS_CONNECTION_STRING": ""}, 4, "Which Redis?"),
        (("list",), {"REDIS_CONNECTION_STRING": f"redis://127.0.0.1:{free_port()}"}, 4, "does not answer"),
    ],
)
async def test_what_can_not_be_done_is_said(
    service: Service, arguments: tuple[str, ...], settings: dict[str, str], status: int, complaint: str
) -> None:
    """What can't be done is said in a sentence on stderr, with an exit status of its own and no traceback."""
    out, err = await inspect(service, *arguments, status=status, **settings)
    assert out == ""
    assert complaint in err
    assert "Traceback" not in err


async def test_nobody_reads_any_more(service: Service, finished: dict[str, Any]) -> None:
    """A reader of the output that goes ends the program quietly."""
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m inspector export {finished['conversation_id']} | head -n 1",
        cwd=ROOT,
        env=surroundings(service),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert (len(out.splitlines()), err) == (1, b"")


def at_terminal(service: Service, *arguments: str) -> bytes:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    settings = {**surroundings(service), "TERM": "xterm-256color"}
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, env=settings, stdout=theirs, stdin=theirs
    ) as program:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:
                # Linux's way to tell the end.
                break
            if not piece:
                break
            written += piece
    os.close(ours)
    assert program.returncode == 0, written
    return written


async def test_a_terminal_gets_colours_and_nothing_hostile(service: Service, foreign: str) -> None:
    """At a terminal there are colours; an agent's control characters reach none, with or without it."""
    for arguments in (("list",), ("show", foreign, "--text")):
        written = await asyncio.to_thread(at_terminal, service, *arguments)
        assert b"\x1b[2m" in written
        assert b"\x1b[2J" not in written
    piped, _ = await inspect(service, "show", foreign, "--text")
    assert "\x1b" not in piped
    assert "�[2JHi" in piped


async def test_rich_is_not_needed(service: Service, tmp_path: Path, finished: dict[str, Any]) -> None:
    """Where Rich is not installed, as beside a service, a terminal gets plain lines."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('not installed')")
    program = (
        "import sys; sys.stdout.isatty = lambda: True; from inspector.__main__ import main; sys.exit(main())"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "show", finished["conversation_id"]),
        cwd=ROOT,
        env=surroundings(service, PYTHONPATH=str(tmp_path)),
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"get_weather_forecast" in out
    assert b"\x1b" not in out
