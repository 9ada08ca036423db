"""Waiting for what other processes and threads do, and asking whether processes are still there.

A test waits for a state, never for a number of seconds: it fails only where the state does not come in a time that no
machine needs, not even one whose cores do something else.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.1


def eventually(read: Callable[[], T], seconds: float = PATIENCE_SECONDS, until: Callable[[T], object] = bool) -> T:
    """The first value of `read` that `until` accepts; fails with the last value after so many seconds."""
    deadline = time.monotonic() + seconds
    pause = SHORTEST_PAUSE
    while not until(value := read()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s; the last value is {value!r}"
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return value


async def eventually_in_loop(read: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """The same for what happens in the event loop of the caller."""
    deadline = time.monotonic() + seconds
    while not (value := read()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s; the last value is {value!r}"
        await asyncio.sleep(SHORTEST_PAUSE)


def runs(process: psutil.Process) -> bool:
    """Whether the process is there and no zombie: some machines' init is slow to collect orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
