"""The bridge's heartbeat, an event in Prefect: the doctor and an automation notice an intake that stands still."""

import logging
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from evaluation.errors import EvaluationError
from prefect_api.events import OutgoingEvent

HEARTBEAT = "leaderboard.bridge.heartbeat"
EVERY_SECONDS = 60.0
# After so long without one the intake counts as standing still: three are missing.
SILENT_SECONDS = 240.0

_LOG = logging.getLogger(__name__)


class _Publisher(Protocol):
    def publish(self, event: OutgoingEvent) -> None: ...


def queue_name(queue_url: str) -> str:
    return urlsplit(queue_url).path.rpartition("/")[2] or "queue"


def bridge_resource(queue_url: str) -> str:
    """The id of the resource that the bridge of that queue is in Prefect's events."""
    return f"leaderboard.bridge.{queue_name(queue_url)}"


class BridgeHeartbeat:
    """Publishes at most one event in `every_seconds`."""

    def __init__(
        self,
        publisher: _Publisher,
        queue_url: str,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._resource = (bridge_resource(queue_url), f"bridge of {queue_name(queue_url)}")
        self._every_seconds = every_seconds
        self._clock = clock
        self._next = clock()

    def beat(self) -> None:
        """To be called before each poll, once all messages of the last one are handled. A failure is only logged."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + self._every_seconds
        try:
            self._publisher.publish(OutgoingEvent(HEARTBEAT, *self._resource, {}))
        except EvaluationError as error:
            _LOG.warning("The bridge's heartbeat was not published: %s", error)
