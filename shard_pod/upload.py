"""Copies a shard's checkpoint, progress and logs to its S3 folder; what has not changed is not sent again."""

import logging
from dataclasses import replace
from pathlib import Path

from evaluation import storage_keys
from evaluation.errors import TransientError
from evaluation.pair.protocol import PairProgress
from shard_pod.checkpoint_store import CheckpointStore
from shard_pod.pair_directory import PairDirectory, read_whole, size, write_whole
from shard_pod.settings import PairSettings
from shard_pod.storage import ShardStorage

log = logging.getLogger(__name__)

_FRESH_SECONDS = 10  # unchanged progress is still written so often, as a heartbeat
LOG_BYTES = 64 * 1024 * 1024  # of a log, its end
_LOG_GROWTH = 1.1  # a log is sent again when it has grown by a tenth, which bounds the traffic of a long shard


class Upload:
    """`copy` sends what is new; the flow and the pod that replaces this one read it."""

    def __init__(
        self,
        settings: PairSettings,
        storage: ShardStorage,
        files: PairDirectory,
        results: CheckpointStore,
        starts_before: int,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._files = files
        self._results = results
        # A pod that replaces another keeps that one's logs.
        self._suffix = f"-from-start-{starts_before + 1}" if starts_before else ""
        self._sent_checkpoint: bytes | None = None
        self._shown: PairProgress | None = None
        self._sent_observations: bytes | None = None
        self._sent_progress: bytes | None = None
        self._sent_sizes: dict[str, int] = {}

    def show(self, progress: PairProgress) -> None:
        """Keep the progress where the local backend and the next copy find it."""
        shown = self._shown
        if shown and progress == replace(shown, updated_at=progress.updated_at) and not _stale(shown, progress):
            return
        write_whole(self._files.progress, progress.render().encode())
        self._shown = progress

    def copy(self) -> None:
        """Send what is new; an S3 that does not answer is for the next copy."""
        try:
            self.copy_now(everything=False)
        except TransientError as error:
            log.warning("Not copied now: %s", error)

    def copy_now(self, everything: bool) -> None:
        """Send what is new, and with `everything` every log's last lines; raises what the storage raises."""
        pk, shard = self._settings.submission, self._settings.shard
        good = self._results.good
        observations = read_whole(self._files.observations)  # before the checkpoint: whatever lies there was seen
        if observations and observations != self._sent_observations:
            self._storage.write(storage_keys.observations_key(pk, shard), observations, "application/json")
            self._sent_observations = observations
        if good and good != self._sent_checkpoint:
            self._storage.write(storage_keys.checkpoint_key(pk, shard), good, "application/json")
            self._sent_checkpoint = good
        progress = read_whole(self._files.progress)
        if progress and progress != self._sent_progress:
            self._storage.write(storage_keys.progress_key(pk, shard), progress, "application/json")
            self._sent_progress = progress
        for process, path in self._files.logs.items():
            self._copy_log(process, path, everything)

    def _copy_log(self, process: str, path: Path, everything: bool) -> None:
        found, sent = size(path), self._sent_sizes.get(process, 0)
        if found <= sent * (1 if everything else _LOG_GROWTH):
            return
        content = read_log(path, found)
        settings = self._settings
        key = storage_keys.log_key(settings.submission, settings.shard, settings.attempt, process + self._suffix)
        self._storage.write_log(key, content)
        self._sent_sizes[process] = found


def read_log(path: Path, found: int) -> bytes:
    """The log of so many bytes, or its end under a line that says what is left out."""
    content = read_whole(path, LOG_BYTES) or b""
    if found <= LOG_BYTES:
        return content
    return f"[cut here: the first {found - LOG_BYTES} bytes of this log are left out]\n".encode() + content


def _stale(shown: PairProgress, progress: PairProgress) -> bool:
    return (progress.updated_at - shown.updated_at).total_seconds() > _FRESH_SECONDS
