"""What the reconciler decides where a run could not claim the submission and left its message on the queue."""

from datetime import timedelta

from evaluation.submission.model import SubmissionStatus
from flows.reconciler.decisions import find_discrepancies
from flows.reconciler.model import Action, RunState
from tests.unit.test_reconciler_decisions import MINUTE, NOW, only, run, view

WHY = "EvalAI does not accept the token: 401. Renew the token."


def test_a_blocked_submission_is_reported_with_the_reason_and_gets_no_run_on_top() -> None:
    blocked = [run(RunState.BLOCKED, epoch, NOW - epoch * 5 * MINUTE, message=WHY) for epoch in (1, 2)]

    first = only(view(None, SubmissionStatus.SUBMITTED, *blocked))
    again = only(view(None, SubmissionStatus.SUBMITTED, *blocked, run(RunState.BLOCKED, 3, NOW - MINUTE, message=WHY)))

    assert first.action is Action.NOTIFY_OPERATOR
    assert WHY in first.sentence
    assert again.sentence == first.sentence  # operators hear of the same sentence once


def test_a_submission_that_stays_blocked_is_tried_again_every_hour() -> None:
    blocked = run(RunState.BLOCKED, since=NOW - timedelta(minutes=61), message=WHY)

    assert only(view(None, SubmissionStatus.SUBMITTED, blocked)).action is Action.START_RUN


def test_a_postponed_submission_waits_for_its_message() -> None:
    postponed = run(RunState.POSTPONED, since=NOW - 5 * MINUTE)

    assert find_discrepancies(view(None, SubmissionStatus.SUBMITTED, postponed), NOW) == []


def test_a_postponed_submission_whose_message_does_not_come_back_gets_a_run() -> None:
    postponed = run(RunState.POSTPONED, since=NOW - 40 * MINUTE)

    assert only(view(None, SubmissionStatus.SUBMITTED, postponed)).action is Action.START_RUN
