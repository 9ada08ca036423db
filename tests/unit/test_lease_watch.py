"""Whether a lease has expired, by one observer: no clock of anybody else's decides, and an outage is no silence."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from evaluation.errors import ServiceUnavailable
from evaluation.lifecycle.lease_watch import LeaseWatch
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from tests.fake_ledger import FakeLedger

BEGAN = datetime(2026, 11, 28, 6, tzinfo=UTC)
LEASE = 180.0
HOUR = 3600
SKEWS = (-36000, -600, -300, -140, 0, 60, 110, 125, 140, 180, 240, 300, 600, 36000)


def test_a_lease_has_expired_once_it_was_watched_for_its_whole_time_without_a_renewal() -> None:
    watch = LeaseWatch(LEASE, {7: "a"}, at=1000)
    for at in range(1030, 1180, 30):
        watch.read({7: "a"}, at)
    assert (watch.expired, watch.undecided) == (set(), {7})

    watch.read({7: "a"}, 1180)

    assert (watch.expired, watch.undecided) == ({7}, set())


@pytest.mark.parametrize("now", [{7: "b"}, {}])
def test_a_renewal_or_an_end_at_any_time_decides_for_the_holder(now: dict[int, str]) -> None:
    watch = LeaseWatch(LEASE, {7: "a", 8: "a"}, at=0)
    for at in range(30, 180, 30):
        watch.read({7: "a", 8: "a"}, at)
    watch.read({**now, 8: "a"}, 180)
    assert (watch.expired, watch.renewed, watch.undecided) == ({8}, {7}, set())


def test_a_failed_read_begins_the_measure_again() -> None:
    watch = LeaseWatch(LEASE, {7: "a"}, at=0)
    for at in range(30, 180, 30):
        watch.read({7: "a"}, at)
    watch.failed(180)
    for at in range(210, 360, 30):
        watch.read({7: "a"}, at)
    assert watch.undecided == {7}
    watch.read({7: "a"}, 360)
    assert watch.expired == {7}


def test_an_observer_that_slept_has_not_observed() -> None:
    watch = LeaseWatch(LEASE, {7: "a"}, at=0)
    watch.read({7: "a"}, 36000)
    assert watch.undecided == {7}


@dataclass
class Machines:
    """A run and the reconciler on two machines; `skew` is how far the reconciler's clock is ahead of the run's."""

    skew: float
    dies_at: float = float("inf")
    ledger_away: Callable[[float], bool] = lambda _: False

    def __post_init__(self) -> None:
        self.at = 0.0
        self.ledger = FakeLedger(now=lambda: BEGAN + timedelta(seconds=self.at))
        row = {"submission-id": "7", "claim-owner": "first", "claim-token": "t", "claim-epoch": 1}
        self.ledger.rows[7] = {**row, "lease-until": BEGAN + timedelta(seconds=LEASE)}

    def pass_until(self, then: float) -> None:
        """The run renews every 60 s, where it lives and the ledger answers."""
        while self.at < then:
            self.at += 10
            if self.at % 60 == 0 and self.at < self.dies_at and not self.ledger_away(self.at):
                self.ledger.rows[7] |= {"lease-until": self.ledger.now() + timedelta(seconds=LEASE)}

    def read(self) -> LedgerEntry:
        if self.ledger_away(self.at):
            raise ServiceUnavailable("DynamoDB does not answer")
        entry = read_entry(self.ledger.rows[7])
        assert entry
        return entry

    def taken_over_at(self, first_pass: float, until: float) -> float | None:
        """When the reconciler, which passes every 300 s, takes the claim away; None where it never does."""
        for start in count(int(first_pass), 300):
            if start >= until:
                return None
            self.pass_until(start)
            if self._passes():
                return self.at
        return None

    def _passes(self) -> bool:
        try:
            entry = self.read()
        except ServiceUnavailable:
            return False
        reconcilers_time = BEGAN + timedelta(seconds=self.at + self.skew)
        if entry.seems_held(reconcilers_time, timedelta(seconds=LEASE)):
            return False
        watch, deadline = LeaseWatch(LEASE, {7: entry.sign_of_life}, self.at), self.at + 3 * LEASE
        while watch.undecided and self.at < deadline:
            self.pass_until(self.at + watch.pause)
            try:
                watch.read({7: self.read().sign_of_life}, self.at)
            except ServiceUnavailable:
                watch.failed(self.at)
        return bool(watch.expired)


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("first_pass", [10, 60, 250])
def test_no_clock_takes_a_live_run_s_claim_away(skew: float, first_pass: float) -> None:
    assert Machines(skew).taken_over_at(first_pass, until=3 * HOUR) is None


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("dies_at", [1201, 1259, 1400])
def test_no_clock_keeps_a_dead_run_s_claim_alive(skew: float, dies_at: float) -> None:
    """Two leases until the clocks, whatever they show, raise the suspicion; a pass; and a lease of watching."""
    taken = Machines(skew, dies_at).taken_over_at(10, until=3 * HOUR)
    assert taken is not None
    assert dies_at + LEASE <= taken + 60 <= dies_at + 2 * LEASE + 300 + LEASE + 60


@pytest.mark.parametrize("first_pass", [10, 60, 130, 250])
@pytest.mark.parametrize("length", [150, 200, 400, 1000])
def test_no_outage_of_the_ledger_takes_a_live_run_s_claim_away(first_pass: float, length: float) -> None:
    away = [range(start, int(start + length)) for start in range(1805, 6 * HOUR, 2700)]
    machines = Machines(0, ledger_away=lambda at: any(at in outage for outage in away))
    assert machines.taken_over_at(first_pass, until=6 * HOUR) is None
