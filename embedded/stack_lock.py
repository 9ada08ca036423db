"""The lock of the state folder: one embedded stack at a time, and nothing left of one that was killed."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from deployments.settings import Settings
from deployments.stack_state import stored_state
from embedded.processes import end_all, family_of
from evaluation.errors import InvalidConfiguration, NeedsOperator

_OF_FILES = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


@contextlib.contextmanager
def stack_lock(settings: Settings) -> Iterator[None]:
    """Hold the lock of the state folder, after ending what a killed stack left behind.

    Raises NeedsOperator while another process holds it, InvalidConfiguration for a folder that cannot be used. The
    lock is the kernel's: it goes with its process.
    """
    with _open(settings.state_dir) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NeedsOperator("A stack is running already", _owner(settings), "Stop it first.") from error
        if stale := stored_state(settings.state_file):
            end_all(family_of(stale.id, stale.shards))
            settings.state_file.unlink()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                settings.state_file.unlink()


def _open(folder: Path) -> TextIO:
    with folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (folder / "stack.lock").open("w")


@contextlib.contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Errors of files as one sentence: a folder that is none or belongs to another user, a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_FILES:  # a connection's, for example
            raise
        what = f": {error.filename}" if error.filename and str(error.filename) != str(folder) else ""
        raise InvalidConfiguration(
            f"The state folder {folder} cannot be used",
            (error.strerror or str(error)) + what,
            "Set LEADERBOARD_STATE_DIR to a folder on a disk with room that you may write to.",
        ) from error


def _owner(settings: Settings) -> str:
    state = stored_state(settings.state_file)
    place = f"in {settings.state_dir}"
    return f"process {state.pid} {place}, {state.prefect_url}" if state else place
