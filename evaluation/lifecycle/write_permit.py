"""The permission to write of a step that may be stopped while its thread still waits for its turn."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WritePermit:
    """Held by the thread that writes, revoked by the task that started it.

    A thread outlives the task that waits for it: what it sends after the run has gone on would undo what the run
    sent in the meantime. After `revoke` has returned nothing is being written, and nothing will be.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revoked = False

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Whether the block may write; `revoke` waits for its end."""
        with self._lock:
            yield not self._revoked

    def revoke(self) -> None:
        """Allow no more writes; blocks while one is under way, which its own deadline bounds."""
        with self._lock:
            self._revoked = True
