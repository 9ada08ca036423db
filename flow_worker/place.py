"""Which process executes a run, in words that another process of the same machine can check."""

import socket
from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True)
class Place:
    """A process of a host. Prefect keeps it as the run's infrastructure: `host:pid:started`."""

    host: str
    pid: int
    started: int  # Unix time in ms: a pid is used again, and in a container that restarts it is always 1

    @classmethod
    def here(cls) -> Self:
        own = psutil.Process()
        return cls(socket.gethostname(), own.pid, round(own.create_time() * 1000))

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """None where it is no worker's of this type."""
        match (text or "").rsplit(":", 2):
            case [host, pid, started] if host and pid.isdigit() and started.isdigit():
                return cls(host, int(pid), int(started))
        return None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started}"

    def is_dead(self, seen_from: Self) -> bool:
        """Whether the process has certainly ended; of another host nothing is certain."""
        if self.host != seen_from.host or self == seen_from:
            return False
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or round(process.create_time() * 1000) != self.started
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False
