"""Any order of claims and writes by any runs: one owner per key, attempts only grow, nothing older takes over."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from aws_blocks import a_submission, create_table, credentials_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from blocks.ledger_table import LedgerTable, claim_key
from evaluation.errors import AlreadyClaimed
from evaluation.ports import Claim

FIRST = datetime(2026, 11, 21, tzinfo=UTC)
owners = st.sampled_from(["run-a", "run-b", "run-c"])
resumes = st.sampled_from([None, *(FIRST + timedelta(seconds=step) for step in (0, 0.5, 1, 86400))])


@pytest.fixture
def ledger(aws: dict[str, Any]) -> LedgerTable:
    create_table(aws, "leaderboard-20")
    return LedgerTable(table="leaderboard-20", credentials=credentials_of(aws))


class Claims(RuleBasedStateMachine):
    ledger: LedgerTable
    pks = count(1)  # each example has a submission of its own

    @initialize()
    def a_new_submission(self) -> None:
        self.pk = next(self.pks)
        self.holder: Claim | None = None
        self.status: object = None
        self.old: list[Claim] = []

    @rule(owner=owners, resumed=resumes)
    def claim(self, owner: str, resumed: datetime | None) -> None:
        key = claim_key(resumed)
        newer = self.holder is None or key > self.holder.key
        mine = self.holder is not None and (key, owner) == (self.holder.key, self.holder.owner)
        if not (newer or mine):
            with pytest.raises(AlreadyClaimed):
                self.ledger.claim(a_submission(self.pk, resumed), owner)
            return
        claim = self.ledger.claim(a_submission(self.pk, resumed), owner)
        assert claim.again is mine
        assert claim.attempt == (self.holder.attempt if self.holder else 0) + (not mine)
        if newer:
            self.old += [self.holder] if self.holder else []
            self.holder, self.status = claim, "resuming" if resumed else "submitted"

    @rule(status=st.sampled_from(["running", "finished", "failed"]))
    def update_by_the_holder(self, status: str) -> None:
        if self.holder:
            self.ledger.update(self.holder, {"status": status})
            self.status = status

    @rule(data=st.data())
    def update_by_an_earlier_holder(self, data: st.DataObject) -> None:
        if self.old:
            with pytest.raises(AlreadyClaimed):
                self.ledger.update(data.draw(st.sampled_from(self.old)), {"status": "overwritten"})

    @invariant()
    def the_row_is_the_holder_s(self) -> None:
        row = self.ledger.row(7, self.pk)
        if self.holder is None or row is None:
            assert (self.holder, row) == (None, None)
            return
        written = (row["claim-key"], row["claim-owner"], row["attempt"], row["status"])
        assert written == (self.holder.key, self.holder.owner, self.holder.attempt, self.status)


def test_claims_and_updates_in_any_order(ledger: LedgerTable) -> None:
    modest = settings(
        max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(type("ClaimsOfMoto", (Claims,), {"ledger": ledger}), settings=modest)
