"""The outage of a service that the bridge needs: reported once when it begins and once when it is over."""

import logging
import threading

from evaluation.errors import EvaluationError

_LOG = logging.getLogger(__name__)


class Outage:
    """One service's state: a log line per change instead of one per try, and pauses that grow up to a bound."""

    def __init__(self, name: str, stop: threading.Event, first_pause: float, longest_pause: float) -> None:
        self._name = name
        self._stop = stop
        self._first_pause = first_pause  # seconds
        self._longest_pause = longest_pause
        self._failures = 0
        self.used = False  # it has worked once

    def worked(self) -> None:
        if self._failures:
            _LOG.warning("%s worked again, after %s failures", self._name, self._failures)
        self._failures = 0
        self.used = True

    def failed(self, error: EvaluationError) -> None:
        if not self._failures:
            _LOG.error("%s failed, the messages stay on the queue: %s", self._name, error)
        self._failures += 1

    def pause(self) -> None:
        seconds = self._first_pause * 2 ** min(max(self._failures - 1, 0), 20)
        self._stop.wait(min(seconds, self._longest_pause))
