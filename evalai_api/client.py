"""EvalAI for the flows and the command line. Source: docs/evalai.md. Knows nothing of Prefect."""

import json
from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from datetime import datetime
from functools import partial

from pydantic import SecretStr

from evalai_api.budget import Budget, Urgency
from evalai_api.fields import (
    ChallengeRow,
    LeaderboardRow,
    NewSubmission,
    PhaseRow,
    SplitRow,
    SubmissionList,
    SubmissionRow,
    read,
    read_leaderboard,
    read_list,
    read_submission,
    read_submissions,
    unreadable,
)
from evalai_api.http import EvalAIHttp, RetryPolicy, Timeouts, Upload
from evalai_api.input_file import handed_in_image
from evalai_api.report_body import report_body
from evaluation.errors import InvalidMessage, RequestRefused, ServiceUnavailable, SubmissionCancelled, UnknownSubmission
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.ports import ListedSubmission
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import CLOSED, UNDER_WAY, WAITING, Phase, Submission, SubmissionStatus

# What EvalAI's list can be asked for one by one, of what has not ended; it refuses `partially_evaluated`.
UNFINISHED = sorted((WAITING | UNDER_WAY) - {SubmissionStatus.PARTIALLY_EVALUATED})
# What this project ends a submission with; `archived` is EvalAI's own.
REPORTED_ENDS = CLOSED - {SubmissionStatus.ARCHIVED}


class EvalAIClient:
    """Implements evaluation.ports.EvaluationServer, and what hosts and participants do besides.

    Every method may raise ServiceUnavailable (retries used up), InvalidConfiguration (token or address wrong) and
    RequestRefused. Every request takes a slot of the `budget` first, by its urgency; a step that reads and then writes
    takes both slots before it reads, so that only one request's time passes between its reading and its writing.
    """

    def __init__(
        self,
        api_server: str,
        token: SecretStr,
        budget: Budget,
        challenge_pk: int | None = None,
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._http = EvalAIHttp(api_server, token, budget, timeouts, retries)
        self._challenge_pk = challenge_pk
        self._phases: dict[int, PhaseRow] = {}

    # What the flow needs.

    def submission(self, message: SubmissionMessage, phase: Phase, row: ListedSubmission | None = None) -> Submission:
        """The submission as the list's `row` shows it, or as EvalAI does now; its image where the message names none.

        One that its team deleted is cancelled. Raises UnknownSubmission; InvalidMessage when the message does not
        belong to it.
        """
        self._refuse_other_challenge(message)
        row = row or self.submission_row(message.submission_pk)
        if row.phase_pk != message.phase_pk:
            raise InvalidMessage(
                f"Submission {row.pk} does not belong to the phase that the message names",
                f"EvalAI says phase {row.phase_pk}, the message {message.phase_pk}",
                "A score would land on the wrong leaderboard, so nothing was evaluated.",
            )
        named = message.submitted_image_uri
        handed_in = self._image_to_compare(row) if named else None
        if named and handed_in and handed_in != named:
            raise InvalidMessage(
                f"The message names another image than submission {row.pk} has",
                f"its team handed in {handed_in[:200]!r}, the message says {named[:200]!r}",
                "Nothing was evaluated. Find out who wrote the message.",
            )
        return Submission(
            pk=row.pk,
            challenge_pk=message.challenge_pk,
            phase_pk=row.phase_pk,
            phase=phase,
            team_pk=row.team_pk,
            team_name=row.team_name,
            status=row.status,
            image=named or self._http.retrying(partial(self._handed_in_image, row), requests=0),
            submitted_at=row.submitted_at,
            rerun_resumed_at=row.rerun_resumed_at,
        )

    def status(self, submission: int) -> SubmissionStatus:
        """The submission's status now, `cancelled` for one that its team deleted; raises UnknownSubmission."""
        row = self.submission_row(submission)
        return SubmissionStatus.CANCELLED if row.withdrawn else row.status

    def mark_running(self, submission: Submission, job_name: str, permit: WritePermit | None = None) -> None:
        """Set the status to running, once; raises SubmissionCancelled, and UnknownSubmission where the row is gone.

        Doing it again changes nothing: EvalAI would append the name and set `started_at` again at each call. Nor does
        it where the submission has ended, or once the permit is revoked.
        """
        self._http.retrying(partial(self._mark_running, submission, job_name, permit), 2, Urgency.STATUS)

    def report(self, report: Report) -> None:
        """Write FINISHED, FAILED or CANCELLED; raises SubmissionCancelled where EvalAI already says cancelled.

        The status is read again before every attempt, since EvalAI itself lets a late write undo a cancellation.
        CANCELLED may follow cancelled: that adds the logs and undoes nothing. SubmissionCancelled also stands for a
        submission that its team deleted; one that an administrator of EvalAI deleted raises UnknownSubmission.
        """
        if report.status not in REPORTED_ENDS:
            raise RequestRefused("EvalAI's final report must be finished, failed or cancelled", f"not {report.status}")
        path = f"/api/jobs/challenge/{report.submission.challenge_pk}/update_submission/"
        body = self._body(report, Urgency.REPORT)
        self._http.retrying(partial(self._write, report, path, body), 2, Urgency.REPORT)

    def report_partial(self, report: Report) -> None:
        """Show results so far, status partially_evaluated; raises SubmissionCancelled, as above.

        Does nothing where EvalAI shows an end already, or once the report's permit is revoked.
        """
        if report.status is not SubmissionStatus.PARTIALLY_EVALUATED:
            raise RequestRefused("EvalAI's partial report must be partially_evaluated", f"not {report.status}")
        path = f"/api/jobs/challenges/{report.submission.challenge_pk}/update_partially_evaluated_submission/"
        body = self._body(report, Urgency.PARTIAL)
        self._http.retrying(partial(self._write, report, path, body), 2, Urgency.PARTIAL)

    # What hosts and participants need.

    def submission_row(self, submission: int) -> SubmissionRow:
        """The submission as EvalAI shows it; raises UnknownSubmission."""
        return self._http.retrying(partial(self._read_row, submission))

    def submissions(self, challenge: int, since: datetime | None = None, also: Collection[int] = ()) -> SubmissionList:
        """The challenge's submissions by id; a row that cannot be read is named and hides no other.

        EvalAI's list has no pages. With `since` only what was submitted after that moment is listed, and beside it
        whatever has not ended: six requests, whose cost does not grow with all submissions ever made, and one for
        each of `also` that is not among these. One that is missing then does not exist at EvalAI.
        """
        if since is None:
            return self._listed(challenge, {})
        filters = [{"submitted_after": since.isoformat()}, *({"status": status.value} for status in UNFINISHED)]
        lists = [self._listed(challenge, each) for each in filters]
        rows = {row.pk: row for rows in lists for row in rows}
        for pk in sorted({*also} - {*rows}):
            with suppress(UnknownSubmission):
                rows[pk] = self.submission_row(pk)
        return SubmissionList(rows.values(), list(dict.fromkeys(said for rows in lists for said in rows.unreadable)))

    def list_once(self, challenge: int, since: datetime, is_ours: Callable[[], bool]) -> SubmissionList | None:
        """What was submitted after `since`, in one request and one attempt.

        `is_ours` is asked when the request has its slot; None where it says no, and nothing is sent.
        """

        def ask() -> SubmissionList | None:
            if not is_ours():
                return None
            path = f"/api/jobs/challenge/{challenge}/submission/"
            content = self._http.send("GET", path, query={"submitted_after": since.isoformat()})
            return read_submissions(content, f"the submissions of challenge {challenge}")

        return self._http.once(ask, 1, Urgency.LIST)

    def phases(self, challenge: int) -> dict[int, str]:
        """The challenge's phases, id to codename; EvalAI shows them to its hosts only."""
        return {phase.pk: phase.codename for phase in self.phase_rows(challenge)}

    def phase_rows(self, challenge: int) -> list[PhaseRow]:
        """The challenge's phases with their settings; for its hosts only."""
        path = f"/api/challenges/{challenge}/phases/"
        return read_list(PhaseRow, self._get(path), f"the phases of challenge {challenge}")

    def leaderboards(self, challenge: int) -> list[SplitRow]:
        """The leaderboard of each phase, with its labels."""
        path = f"/api/challenges/{challenge}/challenge_phase_split"
        return read_list(SplitRow, self._get(path), f"the leaderboards of challenge {challenge}")

    def leaderboard(self, split: int) -> list[LeaderboardRow]:
        """The rows of one leaderboard in EvalAI's order: one request for each hundred teams."""
        path = f"/api/jobs/challenge_phase_split/{split}/leaderboard/"
        return read_leaderboard(lambda page: self._get(path, {"page": str(page)}), f"leaderboard {split}")

    def challenge(self, challenge: int) -> ChallengeRow:
        """The challenge's own settings."""
        path = f"/api/challenges/challenge/{challenge}/"
        return read(ChallengeRow, self._get(path), f"challenge {challenge}")

    def resume(self, submission: int) -> None:
        """Resume a failed submission, same id; raises RequestRefused where it is not failed."""
        # Never repeated: a second POST would publish a second message.
        path = f"/api/jobs/submissions/{submission}/resume/"
        self._http.once(lambda: self._http.send("POST", path, about_submission=True), 1, Urgency.STATUS)

    def cancel(self, challenge: int, submission: int) -> None:
        """Cancel the submission, as its team or as a host; raises UnknownSubmission."""
        path = f"/api/jobs/challenges/{challenge}/submissions/{submission}/update_submission_meta/"
        body = {"status": "cancelled"}
        self._http.retrying(lambda: self._http.send("PATCH", path, body=body, about_submission=True), 1, Urgency.STATUS)

    def submit(self, challenge: int, phase: int, image: str, method_name: str = "") -> int:
        """Submit an image as the participant who owns the token, and return the submission's id."""
        form = {"status": "submitting", "method_name": method_name}
        file = json.dumps({"submitted_image_uri": image}).encode()
        upload = Upload(form, {"input_file": ("submission.json", file, "application/json")})
        path = f"/api/jobs/challenge/{challenge}/challenge_phase/{phase}/submission/"
        # One attempt: a second POST would be a second submission.
        answer = self._http.once(lambda: self._http.send("POST", path, upload=upload), 1, Urgency.STATUS)
        return read(NewSubmission, answer, "the new submission").pk

    # Single attempts, whose slots of the budget are taken.

    def _read_row(self, submission: int) -> SubmissionRow:
        name = f"submission {submission}"
        content = self._http.send("GET", f"/api/jobs/submission/{submission}", about_submission=True)
        row = read_submission(content, name)
        if row.pk != submission:
            raise unreadable(name, f"it is about submission {row.pk}")
        return row

    def _handed_in_image(self, row: ListedSubmission) -> str | None:
        """For a message that was re-sent, or lost and never queued."""
        return handed_in_image(row.input_file, self._http.timeouts, trust_env=not self._http.on_this_machine)

    def _image_to_compare(self, row: ListedSubmission) -> str | None:
        """None where the file cannot be had now: the message is what EvalAI itself made of it."""
        try:
            return self._handed_in_image(row)
        except ServiceUnavailable:
            return None

    def _mark_running(self, submission: Submission, job_name: str, permit: WritePermit | None) -> None:
        row = self._read_row(submission.pk)
        _refuse_withdrawn(row)
        name_is_there = job_name.lower() in row.job_names  # EvalAI stores it in lower case
        if row.status is SubmissionStatus.RUNNING and name_is_there:
            return
        body: dict[str, object] = {"submission": submission.pk, "submission_status": "running"}
        if not name_is_there:
            body["job_name"] = job_name
        path = f"/api/jobs/challenge/{submission.challenge_pk}/update_submission/"
        with permit.writing() if permit else nullcontext(True) as permitted:
            if permitted:
                self._http.send("PATCH", path, body=body, about_submission=True)

    def _write(self, report: Report, path: str, body: dict[str, object]) -> None:
        row = self._read_row(report.submission.pk)
        if report.status is not SubmissionStatus.CANCELLED:
            _refuse_withdrawn(row)
        if report.status is SubmissionStatus.PARTIALLY_EVALUATED and row.status in CLOSED:
            return  # it has ended in the meantime: EvalAI would show it as running again
        with report.permit.writing() if report.permit else nullcontext(True) as permitted:
            if permitted:
                self._http.send("PUT", path, body=body, about_submission=True)

    def _body(self, report: Report, urgency: Urgency) -> dict[str, object]:
        body = report_body(report)
        if (report.stdout or report.stderr) and self._phase(report.submission, urgency).disable_logs:
            return report_body(report, with_logs=False)
        return body

    def _phase(self, submission: Submission, urgency: Urgency) -> PhaseRow:
        """Asked once in the life of a client, which is that of a run."""
        challenge, phase = submission.challenge_pk, submission.phase_pk
        if phase not in self._phases:
            content = self._get(f"/api/challenges/challenge/{challenge}/challenge_phase/{phase}", urgency=urgency)
            self._phases[phase] = read(PhaseRow, content, f"phase {phase}")
        return self._phases[phase]

    def _listed(self, challenge: int, query: dict[str, str]) -> SubmissionList:
        content = self._get(f"/api/jobs/challenge/{challenge}/submission/", query)
        return read_submissions(content, f"the submissions of challenge {challenge}")

    def _get(self, path: str, query: dict[str, str] | None = None, urgency: Urgency = Urgency.LOOK) -> object:
        return self._http.retrying(lambda: self._http.send("GET", path, query=query), 1, urgency)

    def _refuse_other_challenge(self, message: SubmissionMessage) -> None:
        if self._challenge_pk not in (None, message.challenge_pk):
            raise InvalidMessage(
                f"The message is for challenge {message.challenge_pk}, this installation serves {self._challenge_pk}",
                "EvalAI's development mode puts every challenge on one queue",
            )


def _refuse_withdrawn(row: SubmissionRow) -> None:
    if row.withdrawn:
        what = "deleted" if row.deleted else "cancelled"
        raise SubmissionCancelled(f"Submission {row.pk} of team {row.team_name} was {what}", "EvalAI says so now")
