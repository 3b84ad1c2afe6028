"""Runs a function in a forked process, with limits of time and memory.

Importing the stack takes seconds, and a fork has it at once. What a config
registers, patches or leaks ends with its process.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_INTERVAL = .2
_GIB = 2**30


class ChildLost(Exception):
    """A process ended without a result; the message says why."""


class OutOfMemory(ChildLost):
    """A process was stopped at its memory limit."""


def run(function: Callable[..., Any], *args: Any, timeout: float,
        memory: float, silent: bool = True) -> Any:
    """Call a function in a forked process.

    Args:
        function: The function; it must raise nothing.
        *args: Its arguments.
        timeout: Time limit in seconds.
        memory: Limit of the process's resident memory, GiB. Checked several
            times a second, where there is a /proc.
        silent: Whether to discard what the process prints.

    Returns:
        The function's result, which must be picklable.

    Raises:
        OutOfMemory: The memory limit was reached.
        ChildLost: The time limit was reached, or the process ended by itself.
    """
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_serve, args=(function, args, sender, silent), daemon=True)
    process.start()
    # Otherwise the end of the process would not close the pipe.
    sender.close()
    end = time.monotonic() + timeout
    try:
        while not receiver.poll(_INTERVAL):
            if time.monotonic() > end:
                raise ChildLost(f'stopped after {timeout:g} s (--timeout)')
            if _resident(process.pid) > memory:
                raise OutOfMemory(
                    f'stopped: more than {memory:g} GiB of memory (--memory)')
        return receiver.recv()
    except EOFError:
        process.join()
        raise ChildLost(_end(process.exitcode)) from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _serve(function: Callable[..., Any], args: tuple, sender: Connection,
           silent: bool) -> None:
    """Body of the process."""
    if silent:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
    sender.send(function(*args))


def _resident(pid: int | None) -> float:
    """Resident memory of a process, GiB; 0 if unknown."""
    try:
        pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.
    return pages * os.sysconf('SC_PAGE_SIZE') / _GIB


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        why = '; the system kills a process if memory runs out' \
            if code == -9 else ''
        return f'the process was killed by signal {-code}{why}'
    return f'the process ended with exit code {code}, without a result'
