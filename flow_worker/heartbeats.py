"""The heartbeats of all runs of a process, from one thread: a blocked event loop silences no run."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

_LOG = logging.getLogger("prefect.flow_worker.heartbeats")
TICK_SECONDS = 1.0


@dataclass
class _Beat:
    seconds: float
    emit: Callable[[], None]
    due: float


class Heartbeats:
    """Calls each run's `emit` at once and then every so many seconds, while the run goes on."""

    def __init__(self) -> None:
        self._beats: dict[UUID, _Beat] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def begin(self, run: UUID, seconds: float, emit: Callable[[], None]) -> None:
        with self._lock:
            self._beats[run] = _Beat(seconds, emit, time.monotonic())

    def end(self, run: UUID) -> None:
        with self._lock:
            self._beats.pop(run, None)

    def _keep(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            now = time.monotonic()
            with self._lock:
                due = [beat for beat in self._beats.values() if beat.due <= now]
            for beat in due:
                beat.due = now + beat.seconds
                try:
                    beat.emit()
                except Exception:  # noqa: BLE001 - the next one may succeed, and the others have theirs
                    _LOG.debug("A heartbeat was not sent", exc_info=True)
