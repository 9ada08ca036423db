"""The sentences of an outcome."""

from dataclasses import replace

import pytest

from evaluation.errors import Failure, Fault, ImageRefused, InvalidCheckpoint, ShardsFailed
from evaluation.lifecycle.outcome import (
    Outcome,
    OutcomeStatus,
    attempts_used_up,
    failed,
    held,
    parse_outcome,
    raise_for_failures,
    reason_not_to_run,
    render_outcome,
)
from evaluation.shards import ShardState, ShardStatus
from evaluation.submission.model import Submission, SubmissionStatus, parse_phase
from flows.progress_display import result_markdown

CRASH = Failure("The agent crashed", "exit code 139", "Mend it.", Fault.TEAM)
LOST = Failure("The node was lost", "it was drained", "Resume it.", Fault.INFRASTRUCTURE)
SUBMISSION = Submission(
    7, 1, 1, parse_phase("leaderboard-20-MAP"), 3, "Rocket", SubmissionStatus.RUNNING, "i", None, None
)


def ended(index: int, failure: Failure | None = None) -> ShardStatus:
    return ShardStatus(index, ShardState.FAILED if failure else ShardState.FINISHED, failure=failure)


def test_shards_that_failed_alike_are_named_once() -> None:
    statuses = {0: ended(0, CRASH), 1: ended(1), 2: ended(2, CRASH), 3: ShardStatus(3, ShardState.GONE)}
    with pytest.raises(ShardsFailed) as raised:
        raise_for_failures(statuses)
    assert str(raised.value) == (
        "3 of 4 shards failed: "
        "shard 0, 2: The agent crashed (exit code 139); shard 3: its Job has disappeared. Mend it."
    )
    assert raised.value.fault is Fault.TEAM


def test_a_failure_without_a_cause_has_no_empty_brackets() -> None:
    with pytest.raises(ShardsFailed, match=r"shard 0: The agent crashed[.] "):
        raise_for_failures({0: ended(0, replace(CRASH, cause=""))})


def test_the_team_is_charged_only_for_its_own() -> None:
    with pytest.raises(ShardsFailed) as raised:
        raise_for_failures({0: ended(0, LOST), 1: ended(1)})
    assert raised.value.fault is Fault.INFRASTRUCTURE
    assert failed(SUBMISSION, raised.value, None).fault is Fault.INFRASTRUCTURE
    assert failed(SUBMISSION, InvalidCheckpoint("broken"), None).fault is Fault.INFRASTRUCTURE
    assert failed(SUBMISSION, ImageRefused("no image"), None).fault is Fault.TEAM


def test_a_failure_keeps_what_was_driven_but_reports_no_score() -> None:
    so_far = Outcome(OutcomeStatus.FINISHED, "", result=[{"split": "x"}], metrics={"Driving score": 1.0}, routes_done=3,
                     routes_total=20, summary="routes", merged="{}")  # fmt: skip
    outcome = failed(SUBMISSION, InvalidCheckpoint("Shard 3's file is cut off"), so_far)
    report = outcome.report(SUBMISSION)
    assert (report.status, report.result, report.stdout, report.metadata) == (
        SubmissionStatus.FAILED, (), "routes", "{}",
    )  # fmt: skip
    assert (
        "Shard 3's file is cut off. This was not the agent's fault: a challenge host can resume the submission. "
        "3 of 20 routes" in report.stderr
    )
    assert outcome.metrics == {}


@pytest.mark.parametrize("status", SubmissionStatus)
def test_what_evalai_has_not_closed_is_evaluated_and_a_takeover_continues(
    status: SubmissionStatus,
) -> None:
    submission = replace(SUBMISSION, status=status)
    new, again = reason_not_to_run(submission, False, None), reason_not_to_run(submission, True, None)
    assert (new is None) is (status.value not in {"finished", "failed", "cancelled", "archived"})
    assert (again is None) is (status.value != "cancelled")


def test_a_kept_outcome_is_the_same_when_it_is_read() -> None:
    outcome = Outcome(
        OutcomeStatus.FAILED, "It failed.", Fault.TEAM, ({"split": "s", "accuracies": {"Driving score": 1.5}},),
        {"Driving score": 1.5}, 3, 20, "routes", "{}", "Traceback", "EvalAI is down.",
    )  # fmt: skip
    assert parse_outcome(render_outcome(outcome), "s3://b/7/outcome.json") == replace(
        outcome, result=list(outcome.result)
    )


def test_a_broken_kept_outcome_is_named() -> None:
    with pytest.raises(InvalidCheckpoint, match=r"outcome\.json is not a kept outcome"):
        parse_outcome(b'{"ending": "finis', "s3://b/7/outcome.json")


def test_attempts_have_a_maximum_that_the_outcome_names() -> None:
    within, beyond = attempts_used_up(SUBMISSION, 10, 10), attempts_used_up(SUBMISSION, 11, 10)

    assert within is None
    assert beyond
    assert beyond.ending is OutcomeStatus.FAILED
    assert "attempt 11 of at most 10" in beyond.sentence
    assert "max_attempts" in beyond.sentence


def test_the_page_of_a_held_result_lists_a_hundred_reasons_as_plain_text() -> None:
    reasons = [f"route {route}: its message is '![x](http://x) ```'." for route in range(5000)]
    page = result_markdown(SUBMISSION, held(SUBMISSION, Outcome(OutcomeStatus.HELD, ""), reasons))

    listed = page.split("## Why it is held\n\n```\n")[1].split("\n```\n")[0].splitlines()
    assert listed[0] == "route 0: its message is '![x](http://x) ''''."
    assert listed[100:] == [f"And 4900 more: `leaderboard verify {SUBMISSION.pk}` shows all."]
