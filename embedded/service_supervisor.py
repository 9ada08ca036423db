"""Starts the embedded stack's own services again when they die, as systemd or Kubernetes do in production."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from embedded.processes import Processes

# What they know is on disk or elsewhere. The stand-ins for AWS and EvalAI have all of theirs in memory.
SERVICES = ("prefect-server", "worker", "recovery-worker", "bridge")


@dataclass(frozen=True)
class Restarts:
    """Times in seconds."""

    first_pause: float = 1
    longest_pause: float = 30
    calm: float = 60  # a death after so many seconds counts as the first again
    most: int = 5  # deaths in a row: after that it is no accident


class Supervisor:
    """Watches over the services of a running stack, in the thread that calls `tend`."""

    def __init__(self, processes: Processes, say: Callable[[str], None], restarts: Restarts | None = None) -> None:
        self.crashes: list[str] = []  # services that died by themselves
        self._processes = processes
        self._say = say
        self._restarts = restarts or Restarts()
        self._in_a_row: Counter[str] = Counter()
        self._restart_at: dict[str, float] = {}
        self._started_at: dict[str, float] = {}

    def tend(self) -> None:
        """Start again what has died, once its pause is over; to be called often.

        Raises ServiceUnavailable, with the tail of its log, for what cannot be started again, and for a service that
        dies again and again.
        """
        now = time.monotonic()
        for child in self._processes.children:
            if child.process.poll() is None:
                continue
            if child.name not in SERVICES:
                self._processes.check([child])
            elif child.name not in self._restart_at:
                self._note_death(child.name, child.process.returncode, now)
            elif now >= self._restart_at[child.name]:
                del self._restart_at[child.name]
                self._started_at[child.name] = now
                self._processes.restart(child.name)
                self._say(f"{child.name} is started again")

    def kill(self, name: str, down_seconds: float) -> None:
        """End a service with signal 9, for a drill; it is started again after so many seconds."""
        process = self._processes.child(name).process
        self._restart_at[name] = time.monotonic() + down_seconds
        process.kill()
        process.wait()

    def _note_death(self, name: str, code: int, now: float) -> None:
        self.crashes.append(name)
        if now - self._started_at.get(name, 0) > self._restarts.calm:
            self._in_a_row[name] = 0
        self._in_a_row[name] += 1
        if self._in_a_row[name] > self._restarts.most:
            self._processes.check([self._processes.child(name)])
        pause = min(self._restarts.first_pause * 2 ** (self._in_a_row[name] - 1), self._restarts.longest_pause)
        self._restart_at[name] = now + pause
        self._say(f"{name} has died ({_cause(code)}); it is started again in {pause:g} s")


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
