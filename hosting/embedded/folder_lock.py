"""A lock file that the kernel lets go when its last holder ends, however it ends (POSIX)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

#: Bytes of a lock file that are read: a process id and a newline, with room to spare.
_PID_BYTES: Final = 32


class FolderLock:
    """An exclusive lock with its holder's process id in it. Child processes share it if they inherit it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def fileno(self) -> int:
        """The file descriptor, for a child process to inherit."""
        return self._fd

    def acquire(self) -> bool:
        """Take the lock; false when another process holds it."""
        if sys.platform == "win32":
            raise NotImplementedError("The embedded server doesn't run on Windows, and nothing else locks.")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write_pid(self, pid: int | None) -> None:
        """Say who holds the lock; ``None``: nobody known."""
        os.ftruncate(self._fd, 0)
        if pid is not None:
            os.pwrite(self._fd, b"%d\n" % pid, 0)

    def read_pid(self) -> int | None:
        """Who holds the lock, if it is known."""
        content = os.pread(self._fd, _PID_BYTES, 0).strip()
        return int(content) if content.isdigit() else None

    def release(self) -> None:
        """Let this process's hold go. Releasing it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
