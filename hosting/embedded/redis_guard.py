"""Runs the embedded Redis and stops it when the service is gone; a program of its own (``redis_process.py``).

Arguments: the inherited lock's file descriptor, the seconds to wait for a stopping server, the server's
command. Standard input is a pipe that the service holds open: its end is the order to stop.

Plain standard library, started without site-packages: it costs a few milliseconds and megabytes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(arguments: list[str]) -> int:
    """Run the server until it ends or the pipe does; its exit code."""
    lock, stop_timeout, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(lock,))  # noqa: S603 - as told
    # Whoever finds the lock taken finds the server by this.
    os.pwrite(lock, b"%d\n" % server.pid, 0)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_stop_at_end_of_pipe, args=(server, stop_timeout), daemon=True).start()
    return server.wait()


def _stop_at_end_of_pipe(server: subprocess.Popen[bytes], stop_timeout: float) -> None:
    while os.read(0, 1024):
        pass
    server.terminate()
    try:
        server.wait(stop_timeout)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    # A negative code means a signal; an exit status can't be negative.
    sys.exit(abs(main(sys.argv[1:])))
