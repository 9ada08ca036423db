"""Waiting for what other processes do, with a limit, and asking whether they are still there."""

import time
from collections.abc import Callable

import psutil


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return as soon as the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    """Whether the process is there and no zombie: some machines' init is slow to collect orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
