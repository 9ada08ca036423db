"""Sends what the pair's processes put out to CloudWatch Logs, beside the supervisor and never in its way.

S3 has the logs as well, whole and at the end; here they can be followed and searched while the shard runs.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread

from evaluation import storage_keys
from evaluation.errors import EvaluationError
from shard_pod.log_batches import batches
from shard_pod.log_group import LogGroup
from shard_pod.pair_directory import PairDirectory, read_part, read_whole, size, write_whole
from shard_pod.scoped_session import scoped_session
from shard_pod.settings import PairSettings

log = logging.getLogger(__name__)

CHUNK = 512 * 1024  # bytes in memory at a time
MOST_BEHIND = 4 * 1024 * 1024  # of one log in one pass: an agent that floods its log costs no more than this
LAST_SECONDS = 5.0  # for the last lines, after everything else
LONGEST_PAUSE = 300.0  # seconds between two tries in an outage


@contextmanager
def forwarding(settings: PairSettings, files: PairDirectory) -> Iterator[None]:
    """Meanwhile send the logs to the settings' log group, if they name one."""
    if not settings.log_group:
        yield
        return
    shipper = LogForwarder(settings, files, LogGroup(settings.log_group, partial(scoped_session, settings, os.environ)))
    shipper.start()
    try:
        yield
    finally:
        shipper.close(LAST_SECONDS)


class LogForwarder:
    """A thread that follows the logs. How far each was sent is kept in a file, so that a new supervisor goes on there.

    What was sent when a supervisor dies may be sent again; nothing is left out without a line that says so.
    """

    def __init__(self, settings: PairSettings, files: PairDirectory, group: LogGroup) -> None:
        self._settings = settings
        self._files = files
        self._group = group
        self._sent = _offsets(files.shipped)
        self._failing = False
        self._end = Event()
        self._thread = Thread(target=self._run, name="logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Send the rest, but for no longer than so many seconds."""
        self._end.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = self._settings.copy_seconds
        while not self._end.wait(pause):
            self.ship(last=False)
            pause = min(2 * pause, LONGEST_PAUSE) if self._failing else self._settings.copy_seconds
        self.ship(last=True)

    def ship(self, last: bool) -> None:
        """Send what is new; what CloudWatch does not take now is for the next time. `last`: unfinished lines too."""
        try:
            for process, path in self._files.logs.items():
                self._ship(process, path, last)
        except (EvaluationError, OSError) as error:
            if not self._failing:
                log.warning("Logs are not sent to CloudWatch now: %s", error)
            self._failing = True
            return
        if self._failing:
            log.info("Logs are sent to CloudWatch again")
        self._failing = False

    def _ship(self, process: str, path: Path, last: bool) -> None:
        found, sent = size(path), self._sent.get(process, 0)
        if found < sent:  # begun anew
            sent = 0
        if found - sent > MOST_BEHIND:
            self._leave_out(process, found - MOST_BEHIND - sent)
            self._sent[process] = sent = found - MOST_BEHIND
        while sent < found:
            content = read_part(path, sent, min(CHUNK, found - sent))
            done = self._send(process, content, sent, whole=last and sent + len(content) >= found)
            if not done:
                return
            sent += done

    def _send(self, process: str, content: bytes, sent: int, whole: bool) -> int:
        """Send the lines of this part of the log; how many bytes were sent."""
        done = 0
        for batch in batches(content, _milliseconds(), whole):
            if batch.events:
                self._group.put(self._stream(process), batch.events)
            done = batch.end
            self._sent[process] = sent + done
            write_whole(self._files.shipped, json.dumps(self._sent).encode())
        return done

    def _leave_out(self, process: str, count: int) -> None:
        sentence = f"[{count} bytes are left out here: the log grows faster than it is sent. S3 has its end.]"
        self._group.put(self._stream(process), [{"timestamp": _milliseconds(), "message": sentence}])

    def _stream(self, process: str) -> str:
        settings = self._settings
        return storage_keys.log_stream(settings.submission, settings.attempt, settings.shard, process)


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _offsets(path: Path) -> dict[str, int]:
    """How far each log was sent; from the start where that is not known."""
    try:
        values = json.loads(read_whole(path) or b"{}")
        return {str(process): int(sent) for process, sent in values.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
