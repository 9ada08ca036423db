"""The GPU slots of this machine: a shard's pod starts when a slot is free and it is its team's turn.

The queue is in the run directories, so that every process that starts pods sees the same one, and nothing has to be
given back: a pod that lives holds a slot, whatever becomes of those who started it. A Job keeps its place as long as
a watcher looks after it; without one it is passed over, and has its place again with the next watcher.

    submission-.../ticket.json  {"team": ..., "since": ..., "attempt": ...}: written once, when the Job is accepted
    submission-.../waiting      while it waits; the file's time is its watcher's last look
    submission-.../taken        from its turn on
    slots.lock                  locked by who takes a slot
    turns.json                  {team: number of its last turn}
"""

import fcntl
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.queue_place import QueuePlace
from local_jobs.run_directory import RunDirectory, write_whole
from local_jobs.turns import Ticket, in_turn

WATCHED_SECONDS = 15.0  # a Job that no watcher has looked after for longer is passed over
_LOOK_SECONDS = 0.2  # a process reads the queue no more often, however many watchers it has


@dataclass(frozen=True)
class _Queue:
    """What was read at one time."""

    order: tuple[Ticket, ...]
    held: int  # slots

    @cached_property
    def index(self) -> Mapping[str, int]:
        """By the Job's name, from 0."""
        return {ticket.name: index for index, ticket in enumerate(self.order)}


@dataclass
class _View:
    """What the watchers of one process share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    queue: _Queue | None = None
    at: float = 0.0  # by time.monotonic()
    tickets: dict[str, Ticket] = field(default_factory=dict)  # by the Job's name


_views: dict[str, _View] = {}  # by folder


class GpuSlots:
    """The slots below one folder; `count` pairs may drive at once."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._shared = _views.setdefault(str(folder), _View())

    def enqueue(self, run: RunDirectory, team: str, attempt: str) -> None:
        """Let a Job that needs a pod wait for one; what waits already keeps its place."""
        if (run.path / "waiting").exists():
            return
        with run.alone():
            if not run.needs_pod or (run.path / "waiting").exists():
                return
            if not (run.path / "ticket.json").exists():
                ticket = {"team": team, "since": time.time(), "attempt": attempt}
                write_whole(run.path / "ticket.json", json.dumps(ticket))
            (run.path / "taken").unlink(missing_ok=True)
            (run.path / "waiting").touch()

    def start(self, run: RunDirectory, secrets: Mapping[str, str]) -> QueuePlace | None:
        """Start the pod of a Job that waits if it is its turn; else its place in the queue.

        None as well where it waits no more: another process has started it, or removes it. Raises ServiceUnavailable.
        """
        with suppress(FileNotFoundError):
            os.utime(run.path / "waiting")
            queue = self._look(run.path.name)
            if not self._is_next(queue, run):
                return self._place(queue, run)
            with run.alone():
                if not run.needs_pod:
                    return None
                if not self._take(run):
                    return self._place(self._look(run.path.name), run)
                run.launch(secrets)
        return None

    def _take(self, run: RunDirectory) -> bool:
        """Leave the queue if it is the Job's turn. `run.alone` says to others that it is being launched then."""
        with self._locked():
            queue = self._read()
            self._shared.queue = None
            if not self._is_next(queue, run):
                return False
            (run.path / "waiting").rename(run.path / "taken")
            turns = self._turns()
            turns[self._ticket(run.path).team] = max(turns.values(), default=0) + 1
            write_whole(self._folder / "turns.json", json.dumps(turns))
        return True

    def _is_next(self, queue: _Queue, run: RunDirectory) -> bool:
        index = queue.index.get(run.path.name)
        return index is not None and index < self._count - queue.held

    def _place(self, queue: _Queue, run: RunDirectory) -> QueuePlace | None:
        index = queue.index.get(run.path.name)
        if index is None:
            return None
        mine, before = queue.order[index], queue.order[:index]
        why = f"{queue.held} of {self._count} GPU slots are in use"
        if any(ticket.team != mine.team and ticket.since > mine.since for ticket in before):
            why += ", and another team's turn comes first"
        return QueuePlace(index + 1, len(queue.order), queue.held, why)

    def _look(self, name: str) -> _Queue:
        """The queue as this process read it last, if that is fresh and has the Job."""
        shared = self._shared
        with shared.lock:
            queue = shared.queue
            if queue is None or time.monotonic() - shared.at > _LOOK_SECONDS or name not in queue.index:
                queue = shared.queue = self._read()
                shared.at = time.monotonic()
            return queue

    def _read(self) -> _Queue:
        waiting: list[Ticket] = []
        held: Counter[str] = Counter()
        names: set[str] = set()
        for path in self._folder.glob("submission-*"):
            names.add(path.name)
            if (touched := _changed(path / "waiting")) is not None:
                if time.time() - touched < WATCHED_SECONDS:
                    waiting.append(self._ticket(path))
            elif _holds_slot(RunDirectory(path)):
                held[self._ticket(path).team] += 1
        known = self._shared.tickets
        self._shared.tickets = {name: ticket for name, ticket in known.items() if name in names}
        begun: dict[str, float] = {}
        for ticket in waiting:
            begun[ticket.attempt] = min(ticket.since, begun.get(ticket.attempt, ticket.since))
        tickets = [replace(ticket, since=begun[ticket.attempt]) for ticket in waiting]
        return _Queue(tuple(in_turn(tickets, held, self._turns())), held.total())

    def _turns(self) -> dict[str, int]:
        return {str(team): int(turn) for team, turn in _json(self._folder / "turns.json").items()}

    def _ticket(self, path: Path) -> Ticket:
        """It does not change while the Job is there, so that each process reads it once."""
        known = self._shared.tickets
        if path.name not in known:
            kept = _json(path / "ticket.json")
            if not kept:  # the Job is being deleted, or was made by a version without slots
                return Ticket(0.0, path.name, path.name, "")
            known[path.name] = Ticket(float(kept["since"]), str(kept["attempt"]), path.name, str(kept["team"]))
        return known[path.name]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "slots.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _holds_slot(run: RunDirectory) -> bool:
    """Whether a pod lives there, or is being started."""
    return ((run.path / "taken").exists() and run.launching) or (run.exit is None and run.alive)


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content
