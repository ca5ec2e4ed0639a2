"""A command tied to the process that started it: when that one is gone, however it went, the command's group is killed.

Run as a script, `python leash.py FD COMMAND ...`, in a session of its own. FD is the reading end of a pipe whose
other end the starting process keeps open and never writes to: it ends when that process does. What is waiting for the
end is a child, so that the command itself has the number that its starter knows.
"""

from __future__ import annotations

import os
import signal
import sys


def main(fd: int, command: list[str]) -> None:
    if os.fork() == 0:
        _wait(fd)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.close(fd)
    # Ray blocks the signal that asks for an end, and a shell ignores it for what it starts in the background
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(command[0], command)


def _wait(fd: int) -> None:
    """Until the pipe ends, without a part in the command's output or in the signals that are meant for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for own in range(3):
        os.dup2(nowhere, own)
    while os.read(fd, 1):
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
