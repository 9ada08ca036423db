"""Claims, writes, deaths and resumes in any order: a model of the ledger's row beside the ledger.

What it found, and what is dangerous, is kept by name in test_ledger_claims.py, which also states the rules.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from aws_blocks import a_submission
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_harness import ENDED, FIRST, LEASE, LEDGERS, Harness, entry_of, ledger_harness, lost_answer

from blocks.ledger_table import claim_key
from evaluation.errors import AlreadyClaimed
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from evaluation.lifecycle.stages import Stage
from evaluation.ports import Claim


@pytest.fixture(params=LEDGERS)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    with ledger_harness(request) as harness:
        yield harness


@dataclass(frozen=True)
class Row:
    """What the ledger has to say of the submission; `holder` is None where the holder's answer was lost."""

    key: str
    owner: str
    epoch: int
    attempt: int
    status: str
    stage: Stage
    lease_until: datetime
    holder: Claim | None
    outcome: str | None = None
    ended: bool = False


owners = st.sampled_from(["run-a", "run-b"])
epochs = st.integers(1, 4)
resumes = st.sampled_from([None, *(FIRST + timedelta(seconds=step) for step in (0, 0.5, 86400))])
mostly_not = st.sampled_from([False, False, False, True])


class Claims(RuleBasedStateMachine):
    """Runs that come, die, wake up and write; `claims` are all that were ever given, most of them to zombies."""

    harness: Harness
    pks = count(1)  # each example has a submission of its own
    claims: Bundle[Claim] = Bundle("claims")
    views: Bundle[LedgerEntry] = Bundle("views")

    @initialize()
    def a_new_submission(self) -> None:
        self.pk = next(self.pks)
        self.row: Row | None = None
        self.given: list[Claim] = []
        self.outcomes = count(1)

    @rule(target=claims, owner=owners, epoch=epochs, resumed=resumes, lost=mostly_not)
    def claim(self, owner: str, epoch: int, resumed: datetime | None, lost: bool) -> Any:
        return self._claim(owner, epoch, resumed, lost)

    @precondition(lambda self: self.row is not None)
    @rule(target=claims, later=st.integers(-1, 2), lost=mostly_not)
    def claim_again(self, later: int, lost: bool) -> Any:
        """What takeover runs do, some of them late."""
        assert self.row
        resumed = datetime.fromisoformat(self.row.key) if self.row.key else None
        return self._claim(self.row.owner, max(1, self.row.epoch + later), resumed, lost)

    def _claim(self, owner: str, epoch: int, resumed: datetime | None, lost: bool) -> Any:
        key, submission = claim_key(resumed), a_submission(self.pk, resumed)
        after = self._after_claim(owner, epoch, key, submission.status)
        if after is None:
            with pytest.raises(AlreadyClaimed):
                self.harness.ledger.claim(submission, owner, epoch)
            return multiple()
        again = self.row is not None and self.row.attempt == after.attempt
        self.row = after
        if lost:
            with lost_answer(self.harness):
                self.harness.ledger.claim(submission, owner, epoch)
            return multiple()
        claim = self.harness.ledger.claim(submission, owner, epoch)
        assert claim == Claim(self.pk, 7, key, owner, after.attempt, epoch, claim.token, again)
        self.given.append(claim)
        self.row = replace(after, holder=claim)
        return claim

    def _after_claim(self, owner: str, epoch: int, key: str, status: str) -> Row | None:
        """The row that the claim leaves; None for one that has to be refused."""
        row, lease = self.row, self.harness.now + LEASE
        if row is None or key > row.key:
            return Row(key, owner, epoch, (row.attempt if row else 0) + 1, status, Stage.CLAIMED, lease, None)
        if (owner, key) == (row.owner, row.key) and epoch >= row.epoch and not row.ended:
            return replace(row, epoch=epoch, stage=Stage.CLAIMED, lease_until=lease, holder=None)
        return None

    @rule(claim=claims, status=st.sampled_from(["running", "finished", "failed"]), lost=mostly_not)
    def update(self, claim: Claim, status: str, lost: bool) -> None:
        self._write(claim, lost, lambda: self.harness.ledger.update(claim, {"status": status}), status=status)

    @rule(claim=claims, lost=mostly_not)
    def keep_outcome(self, claim: Claim, lost: bool) -> None:
        outcome = f"{claim.attempt}-{claim.epoch}-{next(self.outcomes)}"
        self._write(claim, lost, lambda: self.harness.ledger.update(claim, {"outcome": outcome}), outcome=outcome)

    @rule(claim=claims, lost=mostly_not)
    def end(self, claim: Claim, lost: bool) -> None:
        self._write(claim, lost, lambda: self.harness.ledger.update(claim, ENDED), ended=True)

    @rule(claim=claims, stage=st.sampled_from([None, *Stage]), lost=mostly_not)
    def renew(self, claim: Claim, stage: Stage | None, lost: bool) -> None:
        changes = {"stage": stage} if stage else {}
        self._write(claim, lost, lambda: self.harness.ledger.renew(claim, stage), **changes)

    def _write(self, claim: Claim, lost: bool, write: Callable[[], None], **changes: Any) -> None:
        if self.row is None or self.row.holder != claim:
            with pytest.raises(AlreadyClaimed):
                write()
            return
        self.row = replace(self.row, lease_until=self.harness.now + LEASE, **changes)
        if lost:
            with lost_answer(self.harness):
                write()
        else:
            write()

    @precondition(lambda self: self.row is not None)
    @rule(target=views)
    def look(self) -> LedgerEntry:
        return entry_of(self.harness, self.pk)

    @rule(view=consumes(views))
    def reopen_from_an_old_view(self, view: LedgerEntry) -> None:
        self._reopen(view)

    @precondition(lambda self: self.row is not None)
    @rule()
    def reopen(self) -> None:
        self._reopen(entry_of(self.harness, self.pk))

    def _reopen(self, view: LedgerEntry) -> None:
        assert self.row
        same = (view.owner, view.key, view.epoch) == (self.row.owner, self.row.key, self.row.epoch)
        if same and self.row.ended and self.row.outcome:
            self.harness.ledger.reopen(view)
            self.row = replace(self.row, ended=False, holder=None, lease_until=self.harness.now)
        else:
            with pytest.raises(AlreadyClaimed):
                self.harness.ledger.reopen(view)

    @rule(seconds=st.sampled_from([1, LEASE.seconds - 1, LEASE.seconds]))
    def time_passes(self, seconds: int) -> None:
        self.harness.now += timedelta(seconds=seconds)

    @invariant()
    def the_row_is_the_model_s_and_at_most_one_claim_holds_it(self) -> None:
        written = self.harness.ledger.row(7, self.pk)
        entry = read_entry(written)
        if self.row is None or entry is None or written is None:
            assert (self.row, entry) == (None, None)
            return
        assert (entry.key, entry.owner, entry.epoch, entry.attempt) == (
            (self.row.key, self.row.owner, self.row.epoch, self.row.attempt)
        )
        assert (entry.status, entry.stage, entry.outcome) == (self.row.status, self.row.stage, self.row.outcome)
        assert (entry.open, entry.lease_until) == (not self.row.ended, self.row.lease_until)
        assert entry.seems_held(self.harness.now, LEASE) is (
            not self.row.ended and self.harness.now < self.row.lease_until
        )
        holders = [claim for claim in self.given if claim.token == written.get("claim-token")]
        assert holders == ([self.row.holder] if self.row.holder else [])

    @invariant()
    def no_outcome_is_older_than_its_evaluation(self) -> None:
        if self.row and self.row.outcome:
            attempt, epoch, _ = map(int, self.row.outcome.split("-"))
            assert attempt == self.row.attempt
            assert epoch <= self.row.epoch

    def teardown(self) -> None:
        entry = read_entry(self.harness.ledger.row(7, self.pk))
        listed = [item for item in self.harness.ledger.entries() if item.submission == self.pk]
        assert listed == ([entry] if entry else [])


def test_claims_writes_deaths_and_resumes_in_any_order(harness: Harness) -> None:
    modest = settings(
        max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(type("ClaimsOfTheLedger", (Claims,), {"harness": harness}), settings=modest)
