"""The sequences in which a claim could be lost, doubled or overwritten; any others are test_ledger_model.py's.

The rules: one holder of the claim at a time, and only its writes count. A later key (a resume) makes a new attempt;
the same key and owner may take an evaluation that has not ended with the same or a later epoch; nothing older does.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from aws_blocks import a_submission
from ledger_testbed import ENDED, FIRST, LEASE, Testbed, ledger_testbed

from evaluation.errors import AlreadyClaimed
from evaluation.lifecycle.stages import Stage

RESUMED = FIRST + timedelta(days=1)


@pytest.fixture
def testbed(aws: dict[str, Any]) -> Iterator[Testbed]:
    with ledger_testbed(aws) as testbed:
        yield testbed


def test_a_predecessor_that_wakes_up_cannot_write(testbed: Testbed) -> None:
    asleep = testbed.ledger.claim(a_submission(), "run-a", 1)
    testbed.now += LEASE
    awake = testbed.ledger.claim(a_submission(), "run-a", 2)
    testbed.ledger.update(awake, {"status": "finished", "outcome": "by epoch 2"})

    for late in (
        lambda: testbed.ledger.update(asleep, {"status": "failed", "outcome": "by epoch 1"}),
        lambda: testbed.ledger.update(asleep, {}),
        lambda: testbed.ledger.renew(asleep),
        lambda: testbed.ledger.renew(asleep, Stage.CLEARING),
    ):
        with pytest.raises(AlreadyClaimed, match="epoch 2 of flow run run-a"):
            late()
    row = testbed.row()
    assert (row["status"], row["outcome"], row["stage"]) == ("finished", "by epoch 2", "claimed")


def test_a_delayed_second_start_cannot_take_back_from_the_third(testbed: Testbed) -> None:
    testbed.ledger.claim(a_submission(), "run-a", 1)
    third = testbed.ledger.claim(a_submission(), "run-a", 3)

    with pytest.raises(AlreadyClaimed, match="epoch 3 of flow run run-a"):
        testbed.ledger.claim(a_submission(), "run-a", 2)

    testbed.ledger.renew(third, Stage.MERGING)
    assert (third.is_takeover, third.attempt, testbed.row()["claim-epoch"]) == (True, 1, 3)


def test_a_resume_during_the_old_run_takes_the_submission_and_the_old_run_cannot_write(testbed: Testbed) -> None:
    old = testbed.ledger.claim(a_submission(), "run-a", 1)
    testbed.ledger.update(old, {"outcome": "of the first attempt", "reason": "x", "undelivered": "y"})

    new = testbed.ledger.claim(a_submission(resumed=RESUMED), "run-b", 1)

    for late in (
        lambda: testbed.ledger.update(old, ENDED),
        lambda: testbed.ledger.claim(a_submission(), "run-a", 2),  # its successor, with the key of the old message
        lambda: testbed.ledger.claim(a_submission(resumed=RESUMED), "run-a", 2),  # the same, asking EvalAI anew
    ):
        with pytest.raises(AlreadyClaimed, match="flow run run-b"):
            late()
    assert (new.again, new.attempt, testbed.entry().open) == (False, 2, True)
    assert {"outcome", "reason", "undelivered", "end-time"}.isdisjoint(testbed.row())


def test_a_claim_whose_answer_was_lost_is_made_again_by_the_same_run_and_counts_once(testbed: Testbed) -> None:
    with testbed.lost_answer():
        testbed.ledger.claim(a_submission(), "run-a", 1)

    with pytest.raises(AlreadyClaimed):
        testbed.ledger.claim(a_submission(), "run-b", 1)
    mine = testbed.ledger.claim(a_submission(), "run-a", 1)

    testbed.ledger.update(mine, {"status": "running"})
    assert (mine.again, mine.attempt, testbed.row()["status"]) == (True, 1, "running")


def test_a_takeover_whose_answer_was_lost_leaves_nobody_as_holder_until_it_is_made_again(testbed: Testbed) -> None:
    before = testbed.ledger.claim(a_submission(), "run-a", 1)
    with testbed.lost_answer():
        testbed.ledger.claim(a_submission(), "run-a", 2)

    with pytest.raises(AlreadyClaimed):
        testbed.ledger.renew(before)
    after = testbed.ledger.claim(a_submission(), "run-a", 2)

    testbed.ledger.renew(after)
    assert (after.attempt, after.again) == (1, True)


def test_an_end_whose_answer_was_lost_can_be_written_again(testbed: Testbed) -> None:
    claim = testbed.ledger.claim(a_submission(), "run-a", 1)
    with testbed.lost_answer():
        testbed.ledger.update(claim, {"status": "finished", **ENDED})

    testbed.ledger.update(claim, {"status": "finished", **ENDED})

    assert (testbed.entry().open, testbed.entry().status) == (False, "finished")


def test_what_has_ended_is_taken_by_a_later_key_only(testbed: Testbed) -> None:
    testbed.ledger.update(testbed.ledger.claim(a_submission(), "run-a", 1), ENDED)

    for owner, epoch in (("run-a", 1), ("run-a", 2), ("run-b", 9)):
        with pytest.raises(AlreadyClaimed, match="evaluated already, until 2026-11-21T10:00:00Z"):
            testbed.ledger.claim(a_submission(), owner, epoch)

    assert testbed.ledger.claim(a_submission(resumed=RESUMED), "run-b", 1).attempt == 2


def test_what_was_reopened_is_for_a_successor_and_not_for_the_run_that_ended_it(testbed: Testbed) -> None:
    ended = testbed.ledger.claim(a_submission(), "run-a", 1)
    testbed.ledger.update(ended, {"status": "finished", "outcome": "kept", **ENDED})

    testbed.ledger.reopen(testbed.entry())

    assert (testbed.entry().open, testbed.entry().held_at(testbed.now), testbed.entry().outcome) == (
        True,
        False,
        "kept",
    )
    with pytest.raises(AlreadyClaimed):
        testbed.ledger.update(ended, ENDED)
    successor = testbed.ledger.claim(a_submission(), "run-a", 2)
    assert (successor.again, successor.attempt, testbed.entry().outcome) == (True, 1, "kept")


def test_an_old_view_of_the_row_reopens_nothing(testbed: Testbed) -> None:
    claim = testbed.ledger.claim(a_submission(), "run-a", 1)
    running = testbed.entry()
    with pytest.raises(AlreadyClaimed):  # it has not ended
        testbed.ledger.reopen(running)
    testbed.ledger.update(claim, ENDED)
    with pytest.raises(AlreadyClaimed):  # no outcome is kept that could be sent again
        testbed.ledger.reopen(testbed.entry())
    testbed.ledger.update(claim, {"outcome": "kept"})
    seen_by_two = testbed.entry()
    testbed.ledger.reopen(seen_by_two)
    testbed.ledger.update(testbed.ledger.claim(a_submission(), "run-a", 2), ENDED)

    with pytest.raises(AlreadyClaimed):  # the slower reconciler: epoch 2 has ended it meanwhile
        testbed.ledger.reopen(seen_by_two)

    assert not testbed.entry().open


def test_a_claim_made_before_starts_were_counted_is_taken_over(testbed: Testbed, aws: dict[str, Any]) -> None:
    testbed.ledger.claim(a_submission(), "run-a", 1)
    boto3.client("dynamodb", **aws).update_item(
        TableName="leaderboard-20",
        Key={"team-id": {"S": "7"}, "submission-id": {"S": "90"}},
        UpdateExpression="REMOVE #epoch, #token, #lease",
        ExpressionAttributeNames={"#epoch": "claim-epoch", "#token": "claim-token", "#lease": "lease-until"},
    )
    assert (testbed.entry().epoch, testbed.entry().held_at(testbed.now)) == (1, False)

    assert testbed.ledger.claim(a_submission(), "run-a", 2).again


@pytest.mark.parametrize(("passed", "held"), [(LEASE - timedelta(seconds=1), True), (LEASE, False)])
def test_a_claim_counts_as_held_until_its_lease_is_over_and_each_write_prolongs_it(
    testbed: Testbed, passed: timedelta, held: bool
) -> None:
    claim = testbed.ledger.claim(a_submission(), "run-a", 1)
    for write in (
        lambda: None,
        lambda: testbed.ledger.renew(claim),
        lambda: testbed.ledger.update(claim, {"status": "x"}),
    ):
        write()
        testbed.now += passed
        assert testbed.entry().held_at(testbed.now) is held
    testbed.ledger.renew(claim)  # late, but nobody has taken it
    assert testbed.entry().held_at(testbed.now)
