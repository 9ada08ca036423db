"""EvalAI's request budget: how much of it is left, and who may take it. Decisions only, without any server.

EvalAI allows a user so many requests in any 60 s, over all endpoints (docs/evalai.md, "Limits"). The budget is a bucket
of slots: it holds a few, which may be taken at once, and fills up at a steady rate. What is less urgent leaves the
last slots to what is more urgent, so that this never waits behind it, in whatever process the two are.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

SLOTS = 7  # that may be taken at once; a final report needs two, and one for its phase
SPARE = 2  # requests a minute that are never taken: for people who use the same account in a browser


class Urgency(IntEnum):
    """What a request is for, the most urgent first. The value is the number of slots that it leaves to those before."""

    REPORT = 0  # an evaluation's end
    LIST = 1  # the list for all runs: one at a time, and every new submission waits for it
    STATUS = 2  # a change of status; what a person at a command waits for
    PARTIAL = 3  # results so far
    LOOK = 5  # one look at one submission; the reconciler. A partial result takes two slots and leaves three


class Budget(Protocol):
    """Hands out the slots, one for each request."""

    def take(self, requests: int, urgency: Urgency) -> None:
        """Wait until so many requests may be sent, and take their slots together; blocks."""

    def pause(self, seconds: float) -> None:
        """EvalAI has refused a request with 429: hand out nothing for so long."""


@dataclass(frozen=True)
class Bucket:
    """The slots at one moment: of `slots`, `taken` are in use, and `per_second` come back."""

    slots: float
    taken: float
    per_second: float

    @property
    def used(self) -> float:
        """The part that is taken, 0 to 1."""
        return min(1.0, self.taken / self.slots)

    def after(self, seconds: float) -> "Bucket":
        """The bucket so many seconds later, if no slot is taken meanwhile."""
        return Bucket(self.slots, max(0.0, self.taken - self.per_second * max(0.0, seconds)), self.per_second)

    def wait(self, requests: int, urgency: Urgency) -> float:
        """Seconds until so many requests of this urgency may be sent, 0 for now, if no other caller takes a slot."""
        lacking = self.taken + requests + urgency - self.slots
        return max(0.0, lacking / self.per_second)

    def taken_for(self, pause_seconds: float) -> float:
        """What has to count as taken so that the first slot is free after the pause only."""
        return max(self.taken, self.slots + self.per_second * pause_seconds)


def per_second(allowed_per_minute: int) -> float:
    """The rate at which slots come back, so that no minute holds more requests than EvalAI allows."""
    return max(1, allowed_per_minute - SPARE - SLOTS) / 60


class ProcessBudget:
    """At most `per_minute` requests in any 60 s of this process, for commands that run without a Prefect server."""

    def __init__(
        self, per_minute: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._not_before = 0.0
        self._lock = threading.Lock()

    def take(self, requests: int, urgency: Urgency) -> None:  # noqa: ARG002 - a command has one kind only
        """Wait until that many requests fit."""
        with self._lock:
            for _ in range(requests):
                oldest = self._sent[0] + 60.0 if len(self._sent) == self._sent.maxlen else 0.0
                if (wait := max(oldest, self._not_before) - self._clock()) > 0:
                    self._sleep(wait)
                self._sent.append(self._clock())

    def pause(self, seconds: float) -> None:
        self._not_before = self._clock() + seconds


class NoBudget:
    """For a few requests that a person waits for: outside of the budget, which leaves some for people."""

    def take(self, requests: int, urgency: Urgency) -> None:
        """At once."""

    def pause(self, seconds: float) -> None:
        """Not at all: the client itself waits before it tries again."""
