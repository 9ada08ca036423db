"""The sequences in which a claim could be lost, doubled or overwritten; any others are test_ledger_model.py's.

The rules: one holder of the claim at a time, and only its writes count. A later key (a resume) makes a new attempt;
the same key and owner may take an evaluation that has not ended with the same or a later epoch; nothing older does.
"""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from aws_blocks import a_submission
from ledger_harness import ENDED, FIRST, LEASE, LEDGERS, Harness, entry_of, ledger_harness, lost_answer, row_of

from evaluation.errors import AlreadyClaimed
from evaluation.lifecycle.stages import Stage

RESUMED = FIRST + timedelta(days=1)


@pytest.fixture(params=LEDGERS)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    with ledger_harness(request) as harness:
        yield harness


def test_a_predecessor_that_wakes_up_cannot_write(harness: Harness) -> None:
    asleep = harness.ledger.claim(a_submission(), "run-a", 1)
    harness.now += LEASE
    awake = harness.ledger.claim(a_submission(), "run-a", 2)
    harness.ledger.update(awake, {"status": "finished", "outcome": "by epoch 2"})

    for late in (
        lambda: harness.ledger.update(asleep, {"status": "failed", "outcome": "by epoch 1"}),
        lambda: harness.ledger.update(asleep, {}),
        lambda: harness.ledger.renew(asleep),
        lambda: harness.ledger.renew(asleep, Stage.CLEARING),
    ):
        with pytest.raises(AlreadyClaimed, match="epoch 2 of flow run run-a"):
            late()
    row = row_of(harness)
    assert (row["status"], row["outcome"], row["stage"]) == ("finished", "by epoch 2", "claimed")


def test_a_delayed_second_start_cannot_take_back_from_the_third(harness: Harness) -> None:
    harness.ledger.claim(a_submission(), "run-a", 1)
    third = harness.ledger.claim(a_submission(), "run-a", 3)

    with pytest.raises(AlreadyClaimed, match="epoch 3 of flow run run-a"):
        harness.ledger.claim(a_submission(), "run-a", 2)

    harness.ledger.renew(third, Stage.MERGING)
    assert (third.is_takeover, third.attempt, row_of(harness)["claim-epoch"]) == (True, 1, 3)


def test_a_resume_during_the_old_run_takes_the_submission_and_the_old_run_cannot_write(harness: Harness) -> None:
    old = harness.ledger.claim(a_submission(), "run-a", 1)
    harness.ledger.update(old, {"outcome": "of the first attempt", "reason": "x", "undelivered": "y"})

    new = harness.ledger.claim(a_submission(resumed=RESUMED), "run-b", 1)

    for late in (
        lambda: harness.ledger.update(old, ENDED),
        lambda: harness.ledger.claim(a_submission(), "run-a", 2),  # its takeover run, with the key of the old message
        lambda: harness.ledger.claim(a_submission(resumed=RESUMED), "run-a", 2),  # the same, asking EvalAI anew
    ):
        with pytest.raises(AlreadyClaimed, match="flow run run-b"):
            late()
    assert (new.is_takeover, new.attempt, entry_of(harness).open) == (False, 2, True)
    assert {"outcome", "reason", "undelivered", "end-time"}.isdisjoint(row_of(harness))


def test_a_claim_whose_answer_was_lost_is_made_again_by_the_same_run_and_counts_once(harness: Harness) -> None:
    with lost_answer(harness):
        harness.ledger.claim(a_submission(), "run-a", 1)

    with pytest.raises(AlreadyClaimed):
        harness.ledger.claim(a_submission(), "run-b", 1)
    mine = harness.ledger.claim(a_submission(), "run-a", 1)

    harness.ledger.update(mine, {"status": "running"})
    assert (mine.is_takeover, mine.attempt, row_of(harness)["status"]) == (True, 1, "running")


def test_a_takeover_whose_answer_was_lost_leaves_nobody_as_holder_until_it_is_made_again(harness: Harness) -> None:
    before = harness.ledger.claim(a_submission(), "run-a", 1)
    with lost_answer(harness):
        harness.ledger.claim(a_submission(), "run-a", 2)

    with pytest.raises(AlreadyClaimed):
        harness.ledger.renew(before)
    after = harness.ledger.claim(a_submission(), "run-a", 2)

    harness.ledger.renew(after)
    assert (after.attempt, after.is_takeover) == (1, True)


def test_an_end_whose_answer_was_lost_can_be_written_again(harness: Harness) -> None:
    claim = harness.ledger.claim(a_submission(), "run-a", 1)
    with lost_answer(harness):
        harness.ledger.update(claim, {"status": "finished", **ENDED})

    harness.ledger.update(claim, {"status": "finished", **ENDED})

    assert (entry_of(harness).open, entry_of(harness).status) == (False, "finished")


def test_what_has_ended_is_taken_by_a_later_key_only(harness: Harness) -> None:
    harness.ledger.update(harness.ledger.claim(a_submission(), "run-a", 1), ENDED)

    for owner, epoch in (("run-a", 1), ("run-a", 2), ("run-b", 9)):
        with pytest.raises(AlreadyClaimed, match="evaluated already, until 2026-11-21T10:00:00Z"):
            harness.ledger.claim(a_submission(), owner, epoch)

    assert harness.ledger.claim(a_submission(resumed=RESUMED), "run-b", 1).attempt == 2


def test_what_was_reopened_is_for_a_takeover_run_and_not_for_the_run_that_ended_it(harness: Harness) -> None:
    ended = harness.ledger.claim(a_submission(), "run-a", 1)
    harness.ledger.update(ended, {"status": "finished", "outcome": "kept", **ENDED})

    harness.ledger.reopen(entry_of(harness))

    assert (entry_of(harness).open, entry_of(harness).seems_held(harness.now, LEASE), entry_of(harness).outcome) == (
        True,
        False,
        "kept",
    )
    with pytest.raises(AlreadyClaimed):
        harness.ledger.update(ended, ENDED)
    takeover = harness.ledger.claim(a_submission(), "run-a", 2)
    assert (takeover.is_takeover, takeover.attempt, entry_of(harness).outcome) == (True, 1, "kept")


def test_an_old_view_of_the_row_reopens_nothing(harness: Harness) -> None:
    claim = harness.ledger.claim(a_submission(), "run-a", 1)
    running = entry_of(harness)
    with pytest.raises(AlreadyClaimed):  # it has not ended
        harness.ledger.reopen(running)
    harness.ledger.update(claim, ENDED)
    with pytest.raises(AlreadyClaimed):  # no outcome is kept that could be sent again
        harness.ledger.reopen(entry_of(harness))
    harness.ledger.update(claim, {"outcome": "kept"})
    seen_by_two = entry_of(harness)
    harness.ledger.reopen(seen_by_two)
    harness.ledger.update(harness.ledger.claim(a_submission(), "run-a", 2), ENDED)

    with pytest.raises(AlreadyClaimed):  # the slower reconciler: epoch 2 has ended it meanwhile
        harness.ledger.reopen(seen_by_two)

    assert not entry_of(harness).open


def test_a_claim_made_before_starts_were_counted_is_taken_over(harness: Harness) -> None:
    harness.ledger.claim(a_submission(), "run-a", 1)
    harness.remove(90, "claim-epoch", "claim-token", "lease-until", "lease-renewal")
    assert (entry_of(harness).epoch, entry_of(harness).seems_held(harness.now, LEASE)) == (1, False)

    assert harness.ledger.claim(a_submission(), "run-a", 2).is_takeover


@pytest.mark.parametrize(("passed", "held"), [(LEASE - timedelta(seconds=1), True), (LEASE, False)])
def test_a_claim_counts_as_held_until_its_lease_is_over_and_each_write_prolongs_it(
    harness: Harness, passed: timedelta, held: bool
) -> None:
    claim = harness.ledger.claim(a_submission(), "run-a", 1)
    for write in (
        lambda: None,
        lambda: harness.ledger.renew(claim),
        lambda: harness.ledger.update(claim, {"status": "x"}),
    ):
        write()
        harness.now += passed
        assert entry_of(harness).seems_held(harness.now, LEASE) is held
    harness.ledger.renew(claim)  # late, but nobody has taken it
    assert entry_of(harness).seems_held(harness.now, LEASE)
