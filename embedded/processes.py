"""The child processes of the embedded stack: each with its own process group and log, all stopped in the end."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from evaluation.errors import CleanupIncomplete, DeadlineExceeded, NeedsOperator, ServiceUnavailable
from local_jobs.run_directory import processes_of

MARKER = "LEADERBOARD_STACK"  # in the environment of everything that a stack starts, with the stack's id
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    command: Sequence[str]
    environment: Mapping[str, str]  # what it has beyond the others


def tail(path: Path, lines: int = 15) -> str:
    """The log's last lines, or a word where there are none."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"


class Processes:
    """The children of one stack. Threads may start them at the same time; after `stop` nothing starts any more."""

    def __init__(self, environment: Mapping[str, str], logs: Path, folder: Path, shards: Path) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._folder = folder  # the children's working directory
        self._shards = shards  # where the local backend keeps its run directories
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._stopping = False

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a child; raises ServiceUnavailable where the stack is stopping or the command cannot be run."""
        log = self._logs / f"{name}.log"
        with self._lock:
            if self._stopping:
                raise ServiceUnavailable(f"{name} was not started", "the stack is stopping")
            with log.open("ab") as output:
                process = self._popen(name, command, environment or {}, output.fileno())
            child = Child(name, process, log, tuple(command), environment or {})
            self._children.append(child)
        return child

    @property
    def children(self) -> tuple[Child, ...]:
        """Those that were started and not waited for, dead or alive."""
        with self._lock:
            return tuple(self._children)

    def child(self, name: str) -> Child:
        """The child of that name, dead or alive; raises NeedsOperator where there is none."""
        for child in self.children:
            if child.name == name:
                return child
        raise NeedsOperator(f"The stack has no process {name}", f"it has {', '.join(c.name for c in self.children)}")

    def restart(self, name: str, environment: Mapping[str, str] | None = None) -> Child:
        """Kill the child, if it still runs, and start it again as it was; what it has started itself is left alone.

        `environment`, where it is given, is from then on what it has beyond the others.
        """
        child = self.child(name)
        child.process.kill()
        child.process.wait()
        with self._lock:
            self._children.remove(child)
        return self.start(child.name, child.command, child.environment if environment is None else environment)

    def run(
        self, name: str, command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a child that ends by itself and wait for it; raises ServiceUnavailable with its log's tail."""
        child = self.start(name, command, environment)
        try:
            code = child.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"{name} did not end within {seconds:.0f} s", tail(child.log)) from error
        if code != 0:
            raise ServiceUnavailable(f"{name} ended with code {code}, its log ({child.log}) says", tail(child.log))
        with self._lock:
            self._children.remove(child)

    def wait_until(self, child: Child, ready: Callable[[], bool], seconds: float) -> None:
        """Return when `ready()`; raises ServiceUnavailable when the child dies first, DeadlineExceeded when late."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check([child])
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"{child.name} was not ready after {seconds:.0f} s", tail(child.log))
            time.sleep(POLL_SECONDS)

    def check(self, children: Iterable[Child] | None = None) -> None:
        """Raise ServiceUnavailable for the first child that has ended, with the tail of its log."""
        for child in self.children if children is None else children:
            code = child.process.poll()
            if code is not None:
                cause = "the stack is stopping" if self._stopping else tail(child.log)
                raise ServiceUnavailable(f"{child.name} ended with code {code}, its log ({child.log}) says", cause)

    def stop(self, seconds: float = 10) -> None:
        """Stop every child, the newest first, and whatever they have started; returns when all are gone."""
        with self._lock:
            self._stopping = True
            children = list(reversed(self._children))
        family = descendants(child.process.pid for child in children)
        for child in children:
            _signal_group(child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(seconds)
            _signal_group(child, signal.SIGKILL)
            child.process.wait()
        end_all([*family, *family_of(self._environment[MARKER], self._shards)])
        self._children.clear()

    def _popen(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], output: int
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - our own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**self._environment, **environment},
                start_new_session=True,  # so that Ctrl-C in the terminal reaches the stack, which stops them in order
            )
        except OSError as error:
            raise ServiceUnavailable(f"{name} did not start", str(error)) from error


def _signal_group(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)


def descendants(pids: Iterable[int]) -> list[psutil.Process]:
    """Everything below these processes, whatever its session or process group."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(pid).children(recursive=True)
    return found


def family_of(stack: str, shards: Path) -> list[psutil.Process]:
    """Every process of a stack, whatever its parent is now: by the stack's id in its environment, or as a shard's."""
    found = {process.pid: process for process in processes_of(str(shards))}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARKER) == stack:
                found[process.pid] = process
    return list(found.values())


def end_all(processes: Sequence[psutil.Process], seconds: float = 3) -> None:
    """TERM, then KILL; raises CleanupIncomplete, naming what is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        while (processes := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    if processes:
        raise CleanupIncomplete("Processes survived", ", ".join(str(process.pid) for process in processes))


def runs(process: psutil.Process) -> bool:
    """A zombie has ended; whether its parent takes note of it is not ours to wait for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
