"""EvalAI in memory. tests/contract/test_evaluation_server.py holds it to the rules of evalai_api.client."""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from evaluation.errors import (
    EvaluationError,
    InvalidMessage,
    RequestRefused,
    SubmissionCancelled,
    UnknownSubmission,
)
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.ports import ListedSubmission
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import CLOSED, Phase, Submission, SubmissionStatus

# What EvalAI's list can be asked for by its status.
LISTED_BY_STATUS = frozenset(SubmissionStatus) - CLOSED - {SubmissionStatus.PARTIALLY_EVALUATED}


@dataclass
class Listed:
    """One line of EvalAI's list."""

    pk: int
    status: SubmissionStatus
    submitted_at: datetime | None = None
    rerun_resumed_at: datetime | None = None
    phase_pk: int = 1
    deleted: bool = False
    team_pk: int = 1
    team_name: str = "Team Rocket"
    input_file: str = ""

    @property
    def withdrawn(self) -> bool:
        return self.deleted or self.status is SubmissionStatus.CANCELLED


class ListedRows(list[Listed]):
    """EvalAI's list, with what had to be left out."""

    unreadable: Sequence[str] = ()


@dataclass
class FakeEvalAI:
    """EvalAI with a few submissions; `trouble` is raised by the next calls, one each."""

    statuses: dict[int, SubmissionStatus] = field(default_factory=dict)
    since: dict[int, datetime] = field(default_factory=dict)  # when a submission was handed in; just now if missing
    phases: dict[int, int] = field(default_factory=dict)  # submission -> phase; 1 where nothing is said
    deleted: set[int] = field(default_factory=set)  # by their teams
    image: str | None = "demo/agent:steady"
    team_name: str = "Team Rocket 🚀"
    reports: list[Report] = field(default_factory=list)
    partial_reports: list[Report] = field(default_factory=list)
    trouble: list[EvaluationError] = field(default_factory=list)
    refuses_reports: EvaluationError | None = None
    unreadable: list[str] = field(default_factory=list)  # rows of its list that make no sense
    requests: list[str] = field(default_factory=list)  # what each was for

    def submission(self, message: SubmissionMessage, phase: Phase, row: ListedSubmission | None = None) -> Submission:
        if row is None:
            self.requests.append("look")
            if self.trouble:
                raise self.trouble.pop(0)
            row = self._row(message.submission_pk)
        if row.phase_pk != message.phase_pk:
            raise InvalidMessage(f"EvalAI says phase {row.phase_pk}, the message {message.phase_pk}")
        return Submission(
            pk=row.pk,
            challenge_pk=message.challenge_pk,
            phase_pk=row.phase_pk,
            phase=phase,
            team_pk=1,
            team_name=self.team_name,
            status=row.status,
            image=message.submitted_image_uri,
            submitted_at=row.submitted_at,
            rerun_resumed_at=row.rerun_resumed_at,
        )

    def submissions(self, challenge: int, since: datetime | None = None, also: Collection[int] = ()) -> ListedRows:
        if self.trouble:
            raise self.trouble.pop(0)
        rows = ListedRows(self._row(pk) for pk in sorted(self.statuses))
        if since is not None:
            rows[:] = [row for row in rows if row.pk in also or self._is_listed(row, since)]
        rows.unreadable = self.unreadable
        return rows

    def list_once(self, challenge: int, since: datetime, is_ours: Callable[[], bool]) -> ListedRows | None:
        if not is_ours():
            return None
        self.requests.append("list")
        if self.trouble:
            raise self.trouble.pop(0)
        return ListedRows(row for row in map(self._row, sorted(self.statuses)) if _is_new(row, since))

    def submission_row(self, submission: int) -> Listed:
        self.requests.append("look")
        return self._row(submission)

    def status(self, submission: int) -> SubmissionStatus:
        self.requests.append("look")
        return self._row(submission).status

    def mark_running(self, submission: Submission, job_name: str, permit: WritePermit | None = None) -> None:
        self.requests += ["running"] * 2
        self._refuse_withdrawn(submission.pk)
        with permit.writing() if permit else nullcontext(True) as permitted:
            if permitted:
                self.statuses[submission.pk] = SubmissionStatus.RUNNING

    def report(self, report: Report) -> None:
        if report.status not in CLOSED - {SubmissionStatus.ARCHIVED}:
            raise RequestRefused("EvalAI's final report must be finished, failed or cancelled", f"not {report.status}")
        if report.status is not SubmissionStatus.CANCELLED:
            self._refuse_withdrawn(report.submission.pk)
        if self.refuses_reports:
            raise self.refuses_reports
        self._write(report, self.reports)

    def report_partial(self, report: Report) -> None:
        if report.status is not SubmissionStatus.PARTIALLY_EVALUATED:
            raise RequestRefused("EvalAI's partial report must be partially_evaluated", f"not {report.status}")
        self._refuse_withdrawn(report.submission.pk)
        if self._row(report.submission.pk).status not in CLOSED:
            self._write(report, self.partial_reports)

    def _row(self, pk: int) -> Listed:
        if pk not in self.statuses:
            raise UnknownSubmission(f"EvalAI does not know submission {pk}")
        status, deleted = self.statuses[pk], pk in self.deleted
        if deleted and status not in CLOSED:
            status = SubmissionStatus.CANCELLED
        return Listed(pk, status, self.since.get(pk), phase_pk=self.phases.get(pk, 1), deleted=deleted)

    def _is_listed(self, row: Listed, since: datetime) -> bool:
        return _is_new(row, since) or self.statuses[row.pk] in LISTED_BY_STATUS

    def _write(self, report: Report, reports: list[Report]) -> None:
        self.requests += ["report"] * 2
        with report.permit.writing() if report.permit else nullcontext(True) as permitted:
            if permitted:
                self._row(report.submission.pk)
                reports.append(report)
                self.statuses[report.submission.pk] = report.status

    def _refuse_withdrawn(self, submission: int) -> None:
        if self._row(submission).withdrawn:
            raise SubmissionCancelled(f"The team cancelled submission {submission}")


def _is_new(row: Listed, since: datetime) -> bool:
    return row.submitted_at is None or row.submitted_at > since
