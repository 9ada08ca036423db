"""What the reconciler decides, situation by situation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.stages import ReconcilerTimeouts, Stage
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.model import SubmissionStatus
from flows.reconciler.decisions import find_discrepancies, needs_runs
from flows.reconciler.explanation import explain
from flows.reconciler.model import Action, EvalAIRow, Finding, Lease, Run, RunState, SubmissionSnapshot
from flows.reconciler.reports import MOST_RESENDS, MOST_RESENDS_OVER_AN_END

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LONG_AGO = NOW - timedelta(hours=2)
TIMEOUTS = ReconcilerTimeouts(timedelta(seconds=180))
HELD = LedgerEntry(
    submission=7, team=1, challenge=1, phase_pk=1, cluster="leaderboard-20", phase="leaderboard-20-SENSORS",
    team_name="Team", key="", owner="first", epoch=1, attempt=2, claimed_at=LONG_AGO, lease_until=NOW + MINUTE,
    stage=Stage.SIMULATING, stage_since=LONG_AGO, ended_at=None, status="running", reason="", outcome=None,
    undelivered="", refused=False, image="demo/agent:1",
)  # fmt: skip
DEAD = replace(HELD, lease_until=NOW - MINUTE)
ENDED = replace(HELD, ended_at=LONG_AGO, status="finished", outcome="7/outcomes/attempt-2-epoch-1.json", stage=None)


def shown(status: SubmissionStatus, since: datetime = LONG_AGO, key: str = "") -> EvalAIRow:
    return EvalAIRow(7, 1, status, since, key)


def run(state: RunState, epoch: int = 1, since: datetime = LONG_AGO, crashes: int = 0, message: str = "") -> Run:
    takeover = Takeover(owner="first", epoch=epoch, crashes=crashes)
    return Run("first" if epoch == 1 else f"epoch-{epoch}", state, since, takeover, message)


def view(
    entry: LedgerEntry | None, status: SubmissionStatus | None = None, *runs: Run, jobs: tuple[int, ...] = ()
) -> SubmissionSnapshot:
    seen = shown(status) if status else None
    expired = entry is not None and entry.open and not entry.seems_held(NOW, TIMEOUTS.lease)
    lease = Lease.EXPIRED if expired else Lease.HELD
    return SubmissionSnapshot(7, seen, entry, TIMEOUTS, 3 * 3600, frozenset(jobs), runs, lease=lease)


def only(view: SubmissionSnapshot) -> Finding:
    [finding] = find_discrepancies(view, NOW)
    return finding


@pytest.mark.parametrize(
    "healthy",
    [
        view(HELD, SubmissionStatus.RUNNING, jobs=(2,)),
        view(ENDED, SubmissionStatus.FINISHED),
        view(None, SubmissionStatus.FINISHED),  # the original system's
        view(replace(ENDED, ended_at=NOW - MINUTE), SubmissionStatus.RUNNING, jobs=(2,)),  # has only just ended
        SubmissionSnapshot(7, shown(SubmissionStatus.SUBMITTED, NOW - MINUTE), None, TIMEOUTS, 0),
        view(ENDED, SubmissionStatus.CANCELLED),  # cancelled after the end: the team's own will
    ],
)
def test_what_agrees_is_left_alone(healthy: SubmissionSnapshot) -> None:
    assert find_discrepancies(healthy, NOW) == []
    assert not needs_runs(healthy, NOW)


def test_a_dead_run_is_followed_by_a_takeover_run_and_marked_as_crashed() -> None:
    finding = only(view(DEAD, SubmissionStatus.RUNNING, run(RunState.RUNNING), jobs=(2,)))
    assert finding.action is Action.TAKE_OVER
    assert finding.takeover == Takeover(owner="first", epoch=2, crashes=1, after_silence=True)
    assert finding.dead_runs == ("first",)
    assert finding.sentence == (
        "Its claim was not renewed for 3 min: run first is running. A takeover run (epoch 2) is started."
    )


def test_a_lease_that_only_seems_to_have_ended_takes_no_claim_away() -> None:
    unclear = replace(view(DEAD, SubmissionStatus.RUNNING, run(RunState.RUNNING), jobs=(2,)), lease=Lease.UNCLEAR)
    assert find_discrepancies(unclear, NOW) == []


@pytest.mark.parametrize(
    ("state", "crashes"),
    [(RunState.CRASHED, 1), (RunState.POSTPONED, 0), (RunState.PENDING, 0), (RunState.RUNNING, 1)],
)
def test_only_deaths_count_as_deaths(state: RunState, crashes: int) -> None:
    finding = only(view(DEAD, None, run(state)))
    silent = state is RunState.RUNNING
    assert finding.takeover == Takeover(owner="first", epoch=2, crashes=crashes, after_silence=silent)


@pytest.mark.parametrize(("turned_out", "crashes"), [(RunState.TAKEN_OVER, 1), (RunState.CRASHED, 2)])
def test_a_silent_run_that_turned_out_to_be_alive_was_no_death(turned_out: RunState, crashes: int) -> None:
    second = run(RunState.CRASHED, 2, crashes=1)
    second = replace(second, takeover=second.takeover.model_copy(update={"after_silence": True}))
    finding = only(view(replace(DEAD, epoch=2), None, run(turned_out), second))
    assert finding.takeover == Takeover(owner="first", epoch=3, crashes=crashes)


def test_a_stuck_run_that_lost_its_claim_alive_still_counts() -> None:
    second = run(RunState.CRASHED, 2, crashes=1)  # it took over from a stuck run, which was not silent
    finding = only(view(replace(DEAD, epoch=2), None, run(RunState.TAKEN_OVER), second))
    assert finding.takeover == Takeover(owner="first", epoch=3, crashes=2)


def test_a_run_that_prefect_has_forgotten_is_followed_too() -> None:
    assert only(view(DEAD)).takeover == Takeover(owner="first", epoch=2)


@pytest.mark.parametrize(("state", "dead"), [(RunState.CANCELLED, ()), (RunState.CANCELLING, ("first",))])
def test_a_run_that_an_operator_stopped_is_ended_and_not_started_again(state: RunState, dead: tuple[str, ...]) -> None:
    finding = only(view(DEAD, None, run(state)))
    assert finding.takeover == Takeover(owner="first", epoch=2, stopped=True)
    assert finding.dead_runs == dead


@pytest.mark.parametrize("state", [RunState.SCHEDULED, RunState.PENDING, RunState.RUNNING])
def test_a_takeover_run_on_its_way_is_waited_for(state: RunState) -> None:
    assert (
        find_discrepancies(view(DEAD, None, run(RunState.CRASHED), run(state, 2, NOW - MINUTE, crashes=1)), NOW) == []
    )


def test_a_takeover_run_that_a_dead_worker_took_is_followed_by_the_next() -> None:
    finding = only(view(DEAD, None, run(RunState.CRASHED), run(RunState.PENDING, 2, crashes=1)))
    assert finding.takeover == Takeover(owner="first", epoch=3, crashes=1)
    assert finding.dead_runs == ("epoch-2",)


def test_a_dead_run_gives_its_slot_up_though_the_takeover_run_is_on_its_way() -> None:
    coming = run(RunState.SCHEDULED, 2, NOW - MINUTE, crashes=1)
    finding = only(view(DEAD, None, run(RunState.RUNNING), coming))
    assert (finding.action, finding.dead_runs) == (Action.MARK_CRASHED, ("first",))


def test_a_takeover_run_that_no_worker_takes_is_notified_of_and_not_doubled() -> None:
    finding = only(view(DEAD, None, run(RunState.CRASHED), run(RunState.SCHEDULED, 2, crashes=1)))
    assert finding.action is Action.NOTIFY_OPERATOR
    assert "Does a worker poll the work pool" in finding.sentence


def test_a_submission_whose_runs_keep_breaking_is_told_and_tried_again_only_now_and_then() -> None:
    last = run(RunState.CRASHED, 8, NOW - 5 * MINUTE, crashes=7, message="KeyError")
    assert only(view(DEAD, None, last)).action is Action.NOTIFY_OPERATOR
    assert only(view(DEAD, None, replace(last, state_since=LONG_AGO))).action is Action.TAKE_OVER


def test_a_refused_report_is_told_and_sent_again_only_now_and_then() -> None:
    refused = replace(DEAD, refused=True, undelivered="EvalAI refused the result.", stage_since=NOW - 5 * MINUTE)
    finding = only(view(refused, SubmissionStatus.RUNNING, run(RunState.POSTPONED)))
    assert (finding.action, "EvalAI refused the result." in finding.sentence) == (Action.NOTIFY_OPERATOR, True)
    assert only(view(replace(refused, stage_since=LONG_AGO), None, run(RunState.POSTPONED))).action is Action.TAKE_OVER


def test_what_is_set_up_wrong_is_told_and_tried_again_only_now_and_then() -> None:
    blocked = run(RunState.BLOCKED, since=NOW - 5 * MINUTE, message="S3 refuses our role.")
    assert only(view(DEAD, None, blocked)).sentence == "S3 refuses our role. The next try comes within the hour."
    later = only(view(DEAD, None, replace(blocked, state_since=LONG_AGO)))
    assert later.takeover == Takeover(owner="first", epoch=2)


@pytest.mark.parametrize("status", [SubmissionStatus.SUBMITTED, SubmissionStatus.RESUMING])
def test_what_was_never_queued_is_started(status: SubmissionStatus) -> None:
    assert only(view(None, status)).action is Action.START_RUN


def test_a_resume_that_was_never_queued_is_started() -> None:
    resumed = SubmissionSnapshot(7, shown(SubmissionStatus.RESUMING, key="2026-11-21T10"), ENDED, TIMEOUTS, 0)
    assert only(resumed).action is Action.START_RUN


def test_a_rejected_message_is_an_operators_to_correct() -> None:
    finding = only(view(None, SubmissionStatus.SUBMITTED, run(RunState.REJECTED, message="Phase 9 is unknown.")))
    assert finding.action is Action.NOTIFY_OPERATOR
    assert "Phase 9 is unknown. Correct that, then `leaderboard queue redrive 7`." in finding.sentence


def test_a_phase_that_is_not_ours_is_an_operators_to_add() -> None:
    elsewhere = replace(view(None, SubmissionStatus.SUBMITTED), unroutable="Phase 9 is not in the secret.")
    assert only(elsewhere).sentence == (
        "EvalAI says submitted since 2026-11-21 10:00:00 UTC, and no run has claimed it: Phase 9 is not in the secret."
    )


def test_a_first_run_that_no_worker_takes_is_told() -> None:
    assert only(view(None, SubmissionStatus.SUBMITTED, run(RunState.SCHEDULED))).action is Action.NOTIFY_OPERATOR


def test_running_at_evalai_and_unknown_here_is_told() -> None:
    finding = only(view(None, SubmissionStatus.RUNNING))
    assert finding.action is Action.NOTIFY_OPERATOR
    assert "no run ever claimed it" in finding.sentence


@pytest.mark.parametrize(
    "status", [SubmissionStatus.QUEUED, SubmissionStatus.RUNNING, SubmissionStatus.PARTIALLY_EVALUATED]
)
def test_running_at_evalai_and_skipped_here_stays_reported(status: SubmissionStatus) -> None:
    skipped = replace(ENDED, status="skipped", outcome=None, reason="EvalAI says running: nothing to simulate.")
    finding = only(view(skipped, status))
    assert finding.action is Action.NOTIFY_OPERATOR
    assert "no run ever claimed it" in finding.sentence


def test_a_row_that_makes_no_sense_is_an_operators_to_correct_and_nothing_else_is_done() -> None:
    broken = replace(DEAD, unreadable="phase-id is 'x'")
    finding = only(view(broken, SubmissionStatus.RUNNING, run(RunState.RUNNING), jobs=(1, 2)))
    assert finding.action is Action.NOTIFY_OPERATOR
    assert finding.sentence == "Its row in the ledger cannot be read: phase-id is 'x'. Correct or remove it."


def test_jobs_of_an_ended_evaluation_and_of_earlier_attempts_are_removed() -> None:
    assert only(view(ENDED, SubmissionStatus.FINISHED, jobs=(2,))).attempts == (2,)
    assert only(view(HELD, SubmissionStatus.RUNNING, jobs=(1, 2))).attempts == (1,)


def test_jobs_that_the_ledger_does_not_know_are_left_to_a_person() -> None:
    assert only(view(None, None, jobs=(1,))).action is Action.NOTIFY_OPERATOR


def test_an_end_that_evalai_does_not_show_is_reported_again() -> None:
    assert only(view(ENDED, SubmissionStatus.RUNNING)).action is Action.RESEND_REPORT
    assert (
        only(view(replace(ENDED, status="failed"), SubmissionStatus.PARTIALLY_EVALUATED)).action is Action.RESEND_REPORT
    )


def test_another_end_at_evalai_is_overwritten_once_and_then_an_operator_decides() -> None:
    ended = replace(ENDED, status="failed")
    assert only(view(ended, SubmissionStatus.FINISHED)).action is Action.RESEND_REPORT

    finding = only(view(replace(ended, resends=MOST_RESENDS_OVER_AN_END), SubmissionStatus.FINISHED))

    assert finding.action is Action.NOTIFY_OPERATOR
    assert "also after its report was sent again (1 of 1): another system wrote there" in finding.sentence


@pytest.mark.parametrize("status", [SubmissionStatus.RUNNING, SubmissionStatus.PARTIALLY_EVALUATED])
def test_a_report_that_is_undone_again_and_again_is_an_operators(status: SubmissionStatus) -> None:
    actions = [only(view(replace(ENDED, resends=resends), status)).action for resends in range(MOST_RESENDS + 1)]
    assert actions == [Action.RESEND_REPORT] * MOST_RESENDS + [Action.NOTIFY_OPERATOR]


def test_a_cancellation_that_a_late_write_undid_is_an_operators_to_restore() -> None:
    finding = only(view(replace(ENDED, status="cancelled"), SubmissionStatus.RUNNING))
    assert (finding.action, "undid the cancellation" in finding.sentence) == (Action.NOTIFY_OPERATOR, True)


STUCK = replace(HELD, stage=Stage.LAUNCHING, stage_since=NOW - timedelta(hours=4))
TOO_LONG = "It has been launching since 2026-11-21 08:00:00 UTC, longer than 3 h."


def test_a_stage_that_lasts_too_long_is_notified_of_and_a_takeover_run_goes_on() -> None:
    stuck = view(STUCK, SubmissionStatus.RUNNING, run(RunState.RUNNING, crashes=1))
    assert needs_runs(stuck, NOW)

    notified, repaired = find_discrepancies(stuck, NOW)

    assert (notified.action, notified.sentence) == (Action.NOTIFY_OPERATOR, TOO_LONG)
    takes_over = f"{TOO_LONG} A takeover run (epoch 2) is started."
    assert (repaired.action, repaired.sentence) == (Action.TAKE_OVER, takes_over)
    assert repaired.takeover == Takeover(owner="first", epoch=2, crashes=2)
    assert repaired.dead_runs == ()  # it lives, and learns from the ledger that it has lost the claim


@pytest.mark.parametrize("ahead", [-timedelta(days=1), timedelta(days=1)])
def test_how_long_a_stage_lasts_is_the_holders_own_time(ahead: timedelta) -> None:
    assert STUCK.stage_since
    assert STUCK.lease_until
    late = view(replace(STUCK, stage_since=STUCK.stage_since + ahead, lease_until=STUCK.lease_until + ahead))
    young = view(replace(HELD, stage=Stage.LAUNCHING, stage_since=NOW + ahead, lease_until=NOW + MINUTE + ahead))
    still_held = [replace(each, lease=Lease.HELD) for each in (late, young)]
    assert [[found.action for found in find_discrepancies(each, NOW)] for each in still_held] == [
        [Action.NOTIFY_OPERATOR, Action.TAKE_OVER],
        [],
    ]


@pytest.mark.parametrize("state", [RunState.SCHEDULED, RunState.PENDING])
def test_a_stuck_run_gets_one_takeover_run(state: RunState) -> None:
    stuck = view(STUCK, SubmissionStatus.RUNNING, run(RunState.RUNNING), run(state, 2, NOW - MINUTE, crashes=1))
    assert only(stuck).action is Action.NOTIFY_OPERATOR


def test_a_dead_run_in_a_stage_that_lasts_too_long_gets_one_takeover_run() -> None:
    dead = view(replace(STUCK, lease_until=NOW - MINUTE), None, run(RunState.RUNNING))
    assert [finding.action for finding in find_discrepancies(dead, NOW)] == [Action.NOTIFY_OPERATOR, Action.TAKE_OVER]


def test_a_run_that_a_dead_worker_took_before_its_claim_is_replaced_at_once() -> None:
    waiting = SubmissionSnapshot(
        7,
        shown(SubmissionStatus.SUBMITTED, NOW - 15 * MINUTE),
        None,
        TIMEOUTS,
        0,
        runs=(run(RunState.PENDING, since=NOW - 12 * MINUTE),),
    )
    finding = only(waiting)
    assert needs_runs(waiting, NOW)
    assert (finding.action, finding.dead_runs) == (Action.START_RUN, ("first",))


def waiting(*runs: Run) -> SubmissionSnapshot:
    return SubmissionSnapshot(7, shown(SubmissionStatus.SUBMITTED, NOW - 15 * MINUTE), None, TIMEOUTS, 0, runs=runs)


def test_a_message_that_may_still_come_is_waited_for() -> None:
    assert find_discrepancies(waiting(), NOW) == []
    assert find_discrepancies(waiting(run(RunState.POSTPONED)), NOW) == []


def test_a_run_that_died_before_its_claim_is_replaced_once_its_hook_had_its_chance() -> None:
    assert find_discrepancies(waiting(run(RunState.CRASHED, since=NOW - MINUTE)), NOW) == []
    assert only(waiting(run(RunState.CRASHED, since=NOW - 4 * MINUTE))).action is Action.START_RUN


def test_runs_that_keep_dying_before_the_claim_are_told_and_tried_again_only_now_and_then() -> None:
    died = [replace(run(RunState.CRASHED, since=NOW - 5 * MINUTE, message="KeyError"), id=str(n)) for n in range(6)]
    finding = only(waiting(*died))
    assert (finding.action, "6 of its runs crashed" in finding.sentence) == (Action.NOTIFY_OPERATOR, True)


@pytest.mark.parametrize(
    ("entry", "dead"),
    [
        (ENDED, ("first",)),
        (replace(HELD, owner="another"), ("first",)),
        (replace(HELD, epoch=2), ("first",)),
        (HELD, ()),
    ],
)
def test_a_run_with_nothing_left_to_do_is_shown_as_crashed(entry: LedgerEntry, dead: tuple[str, ...]) -> None:
    findings = find_discrepancies(view(entry, None, run(RunState.RUNNING)), NOW)
    assert [(finding.action, finding.dead_runs) for finding in findings] == (
        [(Action.MARK_CRASHED, dead)] if dead else []
    )


HELD_RESULT = replace(ENDED, status="held", reason="Submission 7 is held: there is a reason.")


@pytest.mark.parametrize(
    ("status", "says"), [(SubmissionStatus.RUNNING, ""), (SubmissionStatus.FINISHED, "EvalAI says finished: somebody")]
)
def test_a_held_result_waits_for_an_operator_and_is_not_taken_over(status: SubmissionStatus, says: str) -> None:
    finding = only(view(HELD_RESULT, status))

    assert finding.action is Action.NOTIFY_OPERATOR
    assert says in finding.sentence
    assert finding.sentence.endswith("Submission 7 is held: there is a reason.")


def test_a_held_result_that_its_team_has_taken_back_needs_nobody() -> None:
    assert find_discrepancies(view(HELD_RESULT, SubmissionStatus.CANCELLED), NOW) == []


def test_a_held_result_is_explained() -> None:
    explained = dict(explain(view(HELD_RESULT, SubmissionStatus.RUNNING), [], NOW).lines)

    assert explained["where"] == "held after attempt 2; EvalAI says running. Submission 7 is held: there is a reason."
    assert explained["waits for"] == "an operator's decision"
    assert "problem" not in explained  # the reason once
