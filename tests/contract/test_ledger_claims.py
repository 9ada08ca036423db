"""The sequences in which a claim could be lost, doubled or overwritten; any others are test_ledger_model.py's.

The rules: one holder of the claim at a time, and only its writes count. A later key (a resume) makes a new attempt;
the same key and owner may take an evaluation that has not ended with the same or a later start; nothing older does.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from aws_blocks import a_submission
from ledger_site import ENDED, FIRST, LEASE, Site, ledger_site

from evaluation.errors import AlreadyClaimed
from evaluation.lifecycle.stages import Stage

RESUMED = FIRST + timedelta(days=1)


@pytest.fixture
def site(aws: dict[str, Any]) -> Iterator[Site]:
    with ledger_site(aws) as site:
        yield site


def test_a_predecessor_that_wakes_up_cannot_write(site: Site) -> None:
    asleep = site.ledger.claim(a_submission(), "run-a", 1)
    site.now += LEASE
    awake = site.ledger.claim(a_submission(), "run-a", 2)
    site.ledger.update(awake, {"status": "finished", "outcome": "by start 2"})

    for late in (
        lambda: site.ledger.update(asleep, {"status": "failed", "outcome": "by start 1"}),
        lambda: site.ledger.update(asleep, {}),
        lambda: site.ledger.renew(asleep),
        lambda: site.ledger.renew(asleep, Stage.CLEARING),
    ):
        with pytest.raises(AlreadyClaimed, match="start 2 of flow run run-a"):
            late()
    row = site.row()
    assert (row["status"], row["outcome"], row["stage"]) == ("finished", "by start 2", "claimed")


def test_a_delayed_second_start_cannot_take_back_from_the_third(site: Site) -> None:
    site.ledger.claim(a_submission(), "run-a", 1)
    third = site.ledger.claim(a_submission(), "run-a", 3)

    with pytest.raises(AlreadyClaimed, match="start 3 of flow run run-a"):
        site.ledger.claim(a_submission(), "run-a", 2)

    site.ledger.renew(third, Stage.MERGING)
    assert (third.again, third.attempt, site.row()["claim-start"]) == (True, 1, 3)


def test_a_resume_during_the_old_run_takes_the_submission_and_the_old_run_cannot_write(site: Site) -> None:
    old = site.ledger.claim(a_submission(), "run-a", 1)
    site.ledger.update(old, {"outcome": "of the first attempt", "reason": "x", "undelivered": "y"})

    new = site.ledger.claim(a_submission(resumed=RESUMED), "run-b", 1)

    for late in (
        lambda: site.ledger.update(old, ENDED),
        lambda: site.ledger.claim(a_submission(), "run-a", 2),  # its successor, with the key of the old message
        lambda: site.ledger.claim(a_submission(resumed=RESUMED), "run-a", 2),  # the same, asking EvalAI anew
    ):
        with pytest.raises(AlreadyClaimed, match="flow run run-b"):
            late()
    assert (new.again, new.attempt, site.entry().open) == (False, 2, True)
    assert {"outcome", "reason", "undelivered", "end-time"}.isdisjoint(site.row())


def test_a_claim_whose_answer_was_lost_is_made_again_by_the_same_run_and_counts_once(site: Site) -> None:
    with site.lost_answer():
        site.ledger.claim(a_submission(), "run-a", 1)

    with pytest.raises(AlreadyClaimed):
        site.ledger.claim(a_submission(), "run-b", 1)
    mine = site.ledger.claim(a_submission(), "run-a", 1)

    site.ledger.update(mine, {"status": "running"})
    assert (mine.again, mine.attempt, site.row()["status"]) == (True, 1, "running")


def test_a_takeover_whose_answer_was_lost_leaves_nobody_as_holder_until_it_is_made_again(site: Site) -> None:
    before = site.ledger.claim(a_submission(), "run-a", 1)
    with site.lost_answer():
        site.ledger.claim(a_submission(), "run-a", 2)

    with pytest.raises(AlreadyClaimed):
        site.ledger.renew(before)
    after = site.ledger.claim(a_submission(), "run-a", 2)

    site.ledger.renew(after)
    assert (after.attempt, after.again) == (1, True)


def test_an_end_whose_answer_was_lost_can_be_written_again(site: Site) -> None:
    claim = site.ledger.claim(a_submission(), "run-a", 1)
    with site.lost_answer():
        site.ledger.update(claim, {"status": "finished", **ENDED})

    site.ledger.update(claim, {"status": "finished", **ENDED})

    assert (site.entry().open, site.entry().status) == (False, "finished")


def test_what_has_ended_is_taken_by_a_later_key_only(site: Site) -> None:
    site.ledger.update(site.ledger.claim(a_submission(), "run-a", 1), ENDED)

    for owner, start in (("run-a", 1), ("run-a", 2), ("run-b", 9)):
        with pytest.raises(AlreadyClaimed, match="evaluated already, until 2026-11-21T10:00:00Z"):
            site.ledger.claim(a_submission(), owner, start)

    assert site.ledger.claim(a_submission(resumed=RESUMED), "run-b", 1).attempt == 2


def test_what_was_reopened_is_for_a_successor_and_not_for_the_run_that_ended_it(site: Site) -> None:
    ended = site.ledger.claim(a_submission(), "run-a", 1)
    site.ledger.update(ended, {"status": "finished", "outcome": "kept", **ENDED})

    site.ledger.reopen(site.entry())

    assert (site.entry().open, site.entry().held_at(site.now), site.entry().outcome) == (True, False, "kept")
    with pytest.raises(AlreadyClaimed):
        site.ledger.update(ended, ENDED)
    successor = site.ledger.claim(a_submission(), "run-a", 2)
    assert (successor.again, successor.attempt, site.entry().outcome) == (True, 1, "kept")


def test_an_old_view_of_the_row_reopens_nothing(site: Site) -> None:
    claim = site.ledger.claim(a_submission(), "run-a", 1)
    running = site.entry()
    with pytest.raises(AlreadyClaimed):  # it has not ended
        site.ledger.reopen(running)
    site.ledger.update(claim, ENDED)
    with pytest.raises(AlreadyClaimed):  # no outcome is kept that could be sent again
        site.ledger.reopen(site.entry())
    site.ledger.update(claim, {"outcome": "kept"})
    seen_by_two = site.entry()
    site.ledger.reopen(seen_by_two)
    site.ledger.update(site.ledger.claim(a_submission(), "run-a", 2), ENDED)

    with pytest.raises(AlreadyClaimed):  # the slower reconciler: start 2 has ended it meanwhile
        site.ledger.reopen(seen_by_two)

    assert not site.entry().open


def test_a_claim_made_before_starts_were_counted_is_taken_over(site: Site, aws: dict[str, Any]) -> None:
    site.ledger.claim(a_submission(), "run-a", 1)
    boto3.client("dynamodb", **aws).update_item(
        TableName="leaderboard-20",
        Key={"team-id": {"S": "7"}, "submission-id": {"S": "90"}},
        UpdateExpression="REMOVE #start, #token, #lease",
        ExpressionAttributeNames={"#start": "claim-start", "#token": "claim-token", "#lease": "lease-until"},
    )
    assert (site.entry().start, site.entry().held_at(site.now)) == (1, False)

    assert site.ledger.claim(a_submission(), "run-a", 2).again


@pytest.mark.parametrize(("passed", "held"), [(LEASE - timedelta(seconds=1), True), (LEASE, False)])
def test_a_claim_counts_as_held_until_its_lease_is_over_and_each_write_prolongs_it(
    site: Site, passed: timedelta, held: bool
) -> None:
    claim = site.ledger.claim(a_submission(), "run-a", 1)
    for write in (lambda: None, lambda: site.ledger.renew(claim), lambda: site.ledger.update(claim, {"status": "x"})):
        write()
        site.now += passed
        assert site.entry().held_at(site.now) is held
    site.ledger.renew(claim)  # late, but nobody has taken it
    assert site.entry().held_at(site.now)
