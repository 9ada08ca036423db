"""Faults that a test switches on: the next answers are wrong, late, or refused."""

import time
from collections import deque
from dataclasses import dataclass

from embedded.evalai_standin.responses import Answer, broken_page

THROTTLED = "Request was throttled. Expected available in {} seconds."


@dataclass(frozen=True)
class Fault:
    """What happens to one request: a wait in seconds, then `answer` instead of the view's, if there is one.

    `after` lets the view do its work before the answer is lost.
    """

    answer: Answer | None = None
    seconds: float = 0.0
    after: bool = False

    @classmethod
    def broken(cls, after: bool = False) -> "Fault":
        return cls(broken_page(), after=after)

    @classmethod
    def throttled(cls, retry_after: int = 1) -> "Fault":
        return cls(throttled_answer(retry_after))

    @classmethod
    def slow(cls, seconds: float, after: bool = False) -> "Fault":
        return cls(seconds=seconds, after=after)


def throttled_answer(seconds: int) -> Answer:
    return Answer(429, {"detail": THROTTLED.format(seconds)}, headers={"Retry-After": str(seconds)})


class Faults:
    """The faults to come, for requests whose path contains `path`, in the order they were added."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, str, Fault]] = deque()

    def add(self, fault: Fault, times: int = 1, path: str = "", method: str = "") -> None:
        self._waiting.extend([(method, path, fault)] * times)

    def take(self, method: str, path: str) -> Fault | None:
        for item in self._waiting:
            if item[0] in ("", method) and item[1] in path:
                self._waiting.remove(item)
                return item[2]
        return None


def wait(fault: Fault | None) -> None:
    if fault is not None and fault.seconds:
        time.sleep(fault.seconds)
