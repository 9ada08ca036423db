"""The budget's decisions, and what they let through over minutes: a simulation with a clock of its own."""

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

import pytest

from evalai_api.budget import SLOTS, Bucket, ProcessBudget, Urgency, per_second

ALLOWED = 60


@dataclass
class Simulation:
    """Callers of several processes, each of which reads the bucket, and asks again after the seconds that it says."""

    bucket: Bucket = field(default_factory=lambda: Bucket(SLOTS, 0, per_second(ALLOWED)))
    now: float = 0.0
    sent: list[tuple[float, Urgency]] = field(default_factory=list)
    _due: list[tuple[float, int, Urgency, int]] = field(default_factory=list)
    _number: "count[int]" = field(default_factory=count)
    _random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    def ask(self, urgency: Urgency, requests: int, at: float = 0.0) -> None:
        heapq.heappush(self._due, (at, next(self._number), urgency, requests))

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            at, _, urgency, requests = heapq.heappop(self._due)
            self.bucket, self.now = self.bucket.after(at - self.now), at
            if wait := self.bucket.wait(requests, urgency):
                self.ask(urgency, requests, at + max(0.2, wait) * self._random.uniform(1, 1.5))
            else:
                self.bucket = Bucket(self.bucket.slots, self.bucket.taken + requests, self.bucket.per_second)
                self.sent += [(at, urgency)] * requests

    def times(self, urgency: Urgency) -> list[float]:
        return [at for at, each in self.sent if each is urgency]


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(begin <= at < begin + 60 for at in times) for begin in times)


@pytest.mark.parametrize("urgency", list(Urgency))
def test_callers_in_a_queue_get_what_evalai_allows_and_never_more(urgency: Urgency) -> None:
    simulation = Simulation()
    for _ in range(250):
        simulation.ask(urgency, 1)

    simulation.run(until=240)

    times = sorted(at for at, _ in simulation.sent)
    assert most_in_a_minute(times) <= ALLOWED
    assert sum(60 <= at < 240 for at in times) >= 3 * 50


def test_a_report_never_waits_behind_looks() -> None:
    simulation = Simulation()
    for _ in range(100):
        simulation.ask(Urgency.LOOK, 1)
    simulation.ask(Urgency.REPORT, 3, at=100)

    simulation.run(until=130)

    assert simulation.times(Urgency.REPORT) == [100, 100, 100]


def test_the_more_urgent_go_first_whatever_was_asked_for_before() -> None:
    simulation = Simulation()
    for urgency in reversed(Urgency):
        for _ in range(40):
            simulation.ask(urgency, 2 if urgency in (Urgency.STATUS, Urgency.PARTIAL) else 1)

    simulation.run(until=900)

    ends = [simulation.times(urgency)[-1] for urgency in Urgency]
    begins = [simulation.times(urgency)[5] for urgency in Urgency]  # the first few find the bucket full
    assert ends == sorted(ends)
    assert all(begin >= end for begin, end in zip(begins[1:], ends, strict=False))


def test_after_a_pause_the_first_slot_is_free_and_no_other() -> None:
    bucket = Bucket(SLOTS, 2, per_second(ALLOWED))

    paused = Bucket(SLOTS, bucket.taken_for(30), bucket.per_second)

    assert paused.wait(1, Urgency.REPORT) == pytest.approx(30 + 1 / bucket.per_second)
    assert paused.after(40).taken < SLOTS
    assert paused.taken_for(10) == paused.taken  # a shorter pause does not end a longer one


@pytest.mark.parametrize("allowed", [8, 20, 60, 300])
def test_no_minute_holds_more_requests_than_evalai_allows(allowed: int) -> None:
    assert SLOTS + 60 * per_second(allowed) <= allowed


def test_the_budget_of_a_process_waits_for_the_oldest_request_to_age() -> None:
    now, waits = [100.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    budget = ProcessBudget(3, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        budget.take(1, Urgency.LOOK)
        now[0] += 10

    budget.take(1, Urgency.LOOK)
    budget.pause(50)
    budget.take(1, Urgency.LOOK)

    assert waits == [30.0, 50.0]
