"""What every `EvaluationServer` does: the client over HTTP, and the fake that the flows' tests use.

What HTTP adds (retries, limits, tokens, EvalAI's quirks) is in the other test_evalai_*.py.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from evalai_harness import CHALLENGE_PK, PHASE_PK, SERVERS, TEAM_NAME, Harness, evalai_harness

from evaluation.errors import InvalidMessage, RequestRefused, SubmissionCancelled, UnknownSubmission
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.ports import EvaluationServer
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import Submission, SubmissionStatus, parse_phase
from tests.contract.evalai_world import FINISHED_RESULT

PHASE = parse_phase("leaderboard-20-SENSORS")
LONG = timedelta(days=400)
OVER = (SubmissionStatus.FINISHED, SubmissionStatus.FAILED, SubmissionStatus.CANCELLED)


@pytest.fixture(params=SERVERS)
def harness(request: pytest.FixtureRequest) -> Harness:
    return evalai_harness(request)


def message(pk: int, phase_pk: int = PHASE_PK) -> SubmissionMessage:
    return SubmissionMessage(
        challenge_pk=CHALLENGE_PK, phase_pk=phase_pk, submission_pk=pk, submitted_image_uri="registry.test/team:1"
    )


def submission(pk: int) -> Submission:
    status = SubmissionStatus.SUBMITTED
    return Submission(pk, CHALLENGE_PK, PHASE_PK, PHASE, 1, TEAM_NAME, status, None, None, None)


def report(pk: int, status: SubmissionStatus) -> Report:
    has_result = status in (SubmissionStatus.FINISHED, SubmissionStatus.PARTIALLY_EVALUATED)
    return Report(submission(pk), status, FINISHED_RESULT if has_result else (), "out", "err", "{}")


def partial(pk: int) -> Report:
    return report(pk, SubmissionStatus.PARTIALLY_EVALUATED)


Write = Callable[[EvaluationServer, int], None]
WRITES: dict[str, Write] = {
    "mark_running": lambda server, pk: server.mark_running(submission(pk), "Submission-7-1"),
    "finished": lambda server, pk: server.report(report(pk, SubmissionStatus.FINISHED)),
    "failed": lambda server, pk: server.report(report(pk, SubmissionStatus.FAILED)),
    "partial": lambda server, pk: server.report_partial(partial(pk)),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())


def test_a_submission_has_what_its_message_does_not_say(harness: Harness) -> None:
    pk = harness.add(age=LONG)

    found = harness.server.submission(message(pk), PHASE)

    assert (found.pk, found.challenge_pk, found.phase_pk, found.phase) == (pk, CHALLENGE_PK, PHASE_PK, PHASE)
    assert (found.team_pk, found.team_name, found.status) == (1, TEAM_NAME, SubmissionStatus.SUBMITTED)
    assert (found.image, found.rerun_resumed_at) == ("registry.test/team:1", None)
    assert found.submitted_at is not None
    assert found.submitted_at < datetime.now(UTC) - LONG / 2


def test_a_message_of_another_phase_is_refused(harness: Harness) -> None:
    pk = harness.add()

    with pytest.raises(InvalidMessage, match="EvalAI says phase 3, the message 4"):
        harness.server.submission(message(pk, phase_pk=4), PHASE)


@every_write
def test_what_an_administrator_removed_is_unknown(harness: Harness, write: Write) -> None:
    pk = harness.add(SubmissionStatus.RUNNING)
    harness.remove(pk)

    for call in (
        lambda: harness.server.submission(message(pk), PHASE),
        lambda: harness.server.status(pk),
        lambda: write(harness.server, pk),
    ):
        with pytest.raises(UnknownSubmission, match=f"ubmission {pk}"):
            call()


def test_running_is_marked_once(harness: Harness) -> None:
    pk = harness.add()
    harness.server.mark_running(submission(pk), "Submission-7-1")
    once = harness.shown(pk)

    harness.server.mark_running(submission(pk), "Submission-7-1")

    assert harness.server.status(pk) is SubmissionStatus.RUNNING
    assert harness.shown(pk) == once


@every_write
def test_a_cancellation_is_not_overwritten(harness: Harness, write: Write) -> None:
    pk = harness.add(SubmissionStatus.CANCELLED)
    before = harness.shown(pk)

    with pytest.raises(SubmissionCancelled):
        write(harness.server, pk)

    assert harness.shown(pk) == before


@every_write
def test_nothing_is_written_to_a_submission_that_its_team_deleted(harness: Harness, write: Write) -> None:
    pk = harness.add(SubmissionStatus.RUNNING)
    harness.delete(pk)
    before = harness.shown(pk)

    with pytest.raises(SubmissionCancelled):
        write(harness.server, pk)

    assert harness.shown(pk) == before


@pytest.mark.parametrize("status", [SubmissionStatus.SUBMITTED, SubmissionStatus.RUNNING, SubmissionStatus.RESUMING])
def test_a_submission_that_its_team_deleted_counts_as_cancelled(harness: Harness, status: SubmissionStatus) -> None:
    pk = harness.add(status)
    harness.delete(pk)

    assert harness.server.submission(message(pk), PHASE).status is SubmissionStatus.CANCELLED
    assert harness.server.status(pk) is SubmissionStatus.CANCELLED
    assert [(row.status, row.withdrawn) for row in harness.server.submissions(CHALLENGE_PK)] == [
        (SubmissionStatus.CANCELLED, True)
    ]


@pytest.mark.parametrize("status", OVER)
def test_a_report_ends_a_submission(harness: Harness, status: SubmissionStatus) -> None:
    pk = harness.add(SubmissionStatus.RUNNING)

    harness.server.report(report(pk, status))

    assert harness.server.status(pk) is status


def test_a_report_of_a_cancellation_adds_its_logs(harness: Harness) -> None:
    pk = harness.add(SubmissionStatus.CANCELLED)
    before = harness.shown(pk)

    harness.server.report(report(pk, SubmissionStatus.CANCELLED))

    assert harness.server.status(pk) is SubmissionStatus.CANCELLED
    assert harness.shown(pk) != before


def test_a_partial_report_goes_before_the_end(harness: Harness) -> None:
    pk = harness.add(SubmissionStatus.RUNNING)

    harness.server.report_partial(partial(pk))
    first = harness.server.status(pk)
    harness.server.report(report(pk, SubmissionStatus.FINISHED))

    assert (first, harness.server.status(pk)) == (SubmissionStatus.PARTIALLY_EVALUATED, SubmissionStatus.FINISHED)


@pytest.mark.parametrize("status", [SubmissionStatus.FINISHED, SubmissionStatus.FAILED, SubmissionStatus.ARCHIVED])
def test_a_partial_report_after_the_end_changes_nothing(harness: Harness, status: SubmissionStatus) -> None:
    pk = harness.add(status)
    before = harness.shown(pk)

    harness.server.report_partial(partial(pk))

    assert harness.shown(pk) == before


def test_a_report_without_its_permit_changes_nothing(harness: Harness) -> None:
    pk, permit = harness.add(SubmissionStatus.RUNNING), WritePermit()
    permit.revoke()
    before = harness.shown(pk)

    harness.server.report_partial(replace(partial(pk), permit=permit))

    assert harness.shown(pk) == before


@pytest.mark.parametrize("status", sorted({*SubmissionStatus} - {*OVER}))
def test_a_report_says_how_it_ended(harness: Harness, status: SubmissionStatus) -> None:
    pk = harness.add(SubmissionStatus.RUNNING)
    before = harness.shown(pk)

    with pytest.raises(RequestRefused, match="final report"):
        harness.server.report(report(pk, status))

    assert harness.shown(pk) == before


def test_a_partial_report_says_that_it_is_one(harness: Harness) -> None:
    pk = harness.add(SubmissionStatus.RUNNING)
    before = harness.shown(pk)

    with pytest.raises(RequestRefused, match="partial report"):
        harness.server.report_partial(report(pk, SubmissionStatus.FINISHED))

    assert harness.shown(pk) == before


def test_the_list_has_every_submission_by_id(harness: Harness) -> None:
    pks = [harness.add(status, LONG / (number + 1)) for number, status in enumerate(SubmissionStatus)]

    rows = list(harness.server.submissions(CHALLENGE_PK))

    assert [(row.pk, row.phase_pk, row.status) for row in rows] == [
        (pk, PHASE_PK, status) for pk, status in zip(pks, SubmissionStatus, strict=True)
    ]


def test_a_list_since_a_moment_has_what_is_new_and_what_waits_or_runs(harness: Harness) -> None:
    old = {status: harness.add(status, LONG) for status in SubmissionStatus}
    new = [harness.add(status) for status in SubmissionStatus]

    rows = harness.server.submissions(CHALLENGE_PK, since=datetime.now(UTC) - LONG / 2)

    not_ended = ("submitted", "submitting", "queued", "running", "resuming")
    assert [row.pk for row in rows] == [*(old[SubmissionStatus(status)] for status in not_ended), *new]


def test_a_list_since_a_moment_also_has_what_is_named_and_exists(harness: Harness) -> None:
    old = [harness.add(SubmissionStatus.FINISHED, LONG) for _ in range(3)]
    new = harness.add()

    rows = harness.server.submissions(CHALLENGE_PK, since=datetime.now(UTC) - LONG / 2, also=(new, old[1], 4242))

    assert [row.pk for row in rows] == [old[1], new]


@pytest.mark.parametrize("since", [None, datetime(2020, 1, 1, tzinfo=UTC)])
def test_a_row_that_cannot_be_read_is_named_and_hides_no_other(harness: Harness, since: datetime | None) -> None:
    good, garbled = harness.add(), harness.add()
    harness.garble(garbled)

    rows = harness.server.submissions(CHALLENGE_PK, since=since)

    assert [row.pk for row in rows] == [good]
    [sentence] = rows.unreadable
    assert f"submission {garbled} " in sentence
