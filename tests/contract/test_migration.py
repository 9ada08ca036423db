"""docs/migration.md: rows of the original system are fenced by the page's own expressions, and stay resumable."""

from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from aws_blocks import a_submission, create_table, credentials_of

from blocks.ledger_table import LedgerTable
from evaluation.errors import AlreadyClaimed
from evaluation.lifecycle.ledger_entry import read_entry
from tests.contract.cut_over import TABLE, fence

RESUMED = datetime(2026, 11, 22, tzinfo=UTC)
KEY = {"team-id": {"S": "7"}, "submission-id": {"S": "90"}}
ROW = KEY | {"team-name": {"S": "Team"}, "status": {"S": "FINISHED"}, "Driving score": {"N": "51.2"}}


@pytest.fixture
def ledger(aws: dict[str, Any]) -> LedgerTable:
    create_table(aws, TABLE)
    boto3.client("dynamodb", **aws).put_item(TableName=TABLE, Item=ROW)
    return LedgerTable(table=TABLE, credentials=credentials_of(aws))


def test_without_the_fence_a_row_of_the_original_is_claimed(ledger: LedgerTable) -> None:
    assert ledger.claim(a_submission(), "run-1").attempt == 1


def test_a_fenced_submission_is_not_evaluated_again(aws: dict[str, Any], ledger: LedgerTable) -> None:
    assert fence(aws) == 1

    with pytest.raises(AlreadyClaimed):
        ledger.claim(a_submission(), "run-1")
    row = ledger.row(7, 90)
    assert row == {
        "team-id": "7",
        "submission-id": "90",
        "team-name": "Team",
        "status": "FINISHED",
        "Driving score": 51.2,
        "claim-key": "",
    }
    assert read_entry(row) is None  # the reconciler knows nothing of it


def test_a_resume_of_a_fenced_submission_is_ours(aws: dict[str, Any], ledger: LedgerTable) -> None:
    fence(aws)

    claim = ledger.claim(a_submission(resumed=RESUMED), "run-2")

    assert (claim.attempt, claim.is_takeover) == (1, False)


def test_fencing_again_leaves_fences_and_claims_alone(aws: dict[str, Any], ledger: LedgerTable) -> None:
    fence(aws)
    ledger.claim(a_submission(pk=91), "run-1")

    assert fence(aws) == 0
    assert [entry.submission for entry in ledger.entries()] == [91]
