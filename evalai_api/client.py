"""EvalAI for the flows and the command line. Source: contracts/evalai.md. Knows nothing of Prefect."""

import json
from collections.abc import Callable
from functools import partial

from pydantic import SecretStr

from evalai_api.fields import Fields, SubmissionRow, objects, read_submission, report_body, unreadable
from evalai_api.http import EvalAIHttp, RetryPolicy, Timeouts, Upload
from evalai_api.input_file import handed_in_image
from evaluation.errors import InvalidMessage, RequestRefused, SubmissionCancelled
from evaluation.lifecycle.report import Report
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import Phase, Submission, SubmissionStatus

FINAL = frozenset({SubmissionStatus.FINISHED, SubmissionStatus.FAILED, SubmissionStatus.CANCELLED})


class EvalAIClient:
    """Implements evaluation.ports.EvaluationServer, and what hosts and participants do besides.

    Every method may raise ServiceUnavailable (retries used up), InvalidConfiguration (token or address wrong) and
    RequestRefused. `throttle` is called before every single request and may block.
    """

    def __init__(
        self,
        api_server: str,
        token: SecretStr,
        throttle: Callable[[], None],
        challenge_pk: int | None = None,
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._http = EvalAIHttp(api_server, token, throttle, timeouts, retries)
        self._challenge_pk = challenge_pk

    # What the flow needs.

    def submission(self, message: SubmissionMessage, phase: Phase) -> Submission:
        """Ask for the submission, and for its image where the message names none.

        Raises UnknownSubmission; InvalidMessage when the message does not belong to it.
        """
        self._refuse_other_challenge(message)
        row = self.submission_row(message.submission_pk)
        if row.phase_pk != message.phase_pk:
            raise InvalidMessage(
                f"Submission {row.pk} does not belong to the phase that the message names",
                f"EvalAI says phase {row.phase_pk}, the message {message.phase_pk}",
                "A score would land on the wrong leaderboard, so nothing was evaluated.",
            )
        return Submission(
            pk=row.pk,
            challenge_pk=message.challenge_pk,
            phase_pk=row.phase_pk,
            phase=phase,
            team_pk=row.team_pk,
            team_name=row.team_name,
            status=row.status,
            image=message.submitted_image_uri or self._http.retrying(partial(self._handed_in_image, row)),
            submitted_at=row.submitted_at,
            rerun_resumed_at=row.rerun_resumed_at,
        )

    def status(self, submission: int) -> SubmissionStatus:
        """The submission's status now; raises UnknownSubmission."""
        return self._http.retrying(partial(self._look, submission)).status

    def mark_running(self, submission: Submission, job_name: str) -> None:
        """Set the status to running, once; raises SubmissionCancelled.

        Doing it again changes nothing: EvalAI would append the name and start its stop-watch anew at each call.
        """
        self._http.retrying(partial(self._mark_running, submission, job_name))

    def report(self, report: Report) -> None:
        """Write FINISHED, FAILED or CANCELLED; raises SubmissionCancelled where EvalAI already says cancelled.

        The status is read again before every attempt, since EvalAI itself lets a late write undo a cancellation.
        CANCELLED may follow cancelled: that adds the logs and undoes nothing.
        """
        if report.status not in FINAL:
            raise RequestRefused("EvalAI's final report must be finished, failed or cancelled", f"not {report.status}")
        path = f"/api/jobs/challenge/{report.submission.challenge_pk}/update_submission/"
        self._http.retrying(partial(self._write, report, path, report_body(report)))

    def report_partial(self, report: Report) -> None:
        """Show results so far, status partially_evaluated; raises SubmissionCancelled, as above.

        Does nothing where EvalAI shows an end already.
        """
        if report.status is not SubmissionStatus.PARTIALLY_EVALUATED:
            raise RequestRefused("EvalAI's partial report must be partially_evaluated", f"not {report.status}")
        path = f"/api/jobs/challenges/{report.submission.challenge_pk}/update_partially_evaluated_submission/"
        self._http.retrying(partial(self._write, report, path, report_body(report)))

    # What hosts and participants need.

    def submission_row(self, submission: int) -> SubmissionRow:
        """The submission as EvalAI shows it; raises UnknownSubmission."""
        return self._http.retrying(partial(self._look, submission))

    def submissions(self, challenge: int) -> list[SubmissionRow]:
        """All submissions of the challenge, all pages of it in one request, by id."""
        path = f"/api/jobs/challenge/{challenge}/submission/"
        content = self._http.retrying(lambda: self._http.send("GET", path))
        rows = map(read_submission, objects(content, f"the submissions of challenge {challenge}"))
        return sorted(rows, key=lambda row: row.pk)

    def phases(self, challenge: int) -> dict[int, str]:
        """The challenge's phases, id to codename; EvalAI shows them to its hosts only."""
        path = f"/api/challenges/{challenge}/phases/"
        content = self._http.retrying(lambda: self._http.send("GET", path))
        phases = objects(content, f"the phases of challenge {challenge}")
        return {phase.whole("id"): phase.text("codename") for phase in phases}

    def resume(self, submission: int) -> None:
        """Send a failed submission on its way again, same id; raises RequestRefused where it is not failed."""
        # Never repeated: a second POST would publish a second message.
        self._http.send("POST", f"/api/jobs/submissions/{submission}/resume/", about_submission=True)

    def cancel(self, challenge: int, submission: int) -> None:
        """Take the submission back, as its team or as a host; raises UnknownSubmission."""
        path = f"/api/jobs/challenges/{challenge}/submissions/{submission}/update_submission_meta/"
        self._http.retrying(lambda: self._http.send("PATCH", path, body={"status": "cancelled"}, about_submission=True))

    def submit(self, challenge: int, phase: int, image: str, method_name: str = "") -> int:
        """Hand in an image as the participant who owns the token, and return the submission's id."""
        form = {"status": "submitting", "method_name": method_name}
        file = json.dumps({"submitted_image_uri": image}).encode()
        answer = self._http.send(  # one attempt: a second POST would be a second submission
            "POST",
            f"/api/jobs/challenge/{challenge}/challenge_phase/{phase}/submission/",
            upload=Upload(form, {"input_file": ("submission.json", file, "application/json")}),
        )
        return Fields(answer, "the new submission").whole("id")

    # Single attempts.

    def _look(self, submission: int) -> SubmissionRow:
        name = f"submission {submission}"
        content = self._http.send("GET", f"/api/jobs/submission/{submission}", about_submission=True)
        row = read_submission(Fields(content, name))
        if row.pk != submission:
            raise unreadable(name, f"it is about submission {row.pk}")
        return row

    def _handed_in_image(self, row: SubmissionRow) -> str | None:
        """For a message that was re-sent, or lost and never queued."""
        return handed_in_image(row.input_file, self._http.timeouts, trust_env=not self._http.on_this_machine)

    def _mark_running(self, submission: Submission, job_name: str) -> None:
        row = self._look(submission.pk)
        _refuse_cancelled(row)
        name_is_there = job_name.lower() in row.job_names  # EvalAI stores it in lower case
        if row.status is SubmissionStatus.RUNNING and name_is_there:
            return
        body: dict[str, object] = {"submission": submission.pk, "submission_status": "running"}
        if not name_is_there:
            body["job_name"] = job_name
        path = f"/api/jobs/challenge/{submission.challenge_pk}/update_submission/"
        self._http.send("PATCH", path, body=body, about_submission=True)

    def _write(self, report: Report, path: str, body: dict[str, object]) -> None:
        row = self._look(report.submission.pk)
        if report.status is not SubmissionStatus.CANCELLED:
            _refuse_cancelled(row)
        if report.status is SubmissionStatus.PARTIALLY_EVALUATED and row.status in FINAL:
            return  # it has ended in the meantime: EvalAI would show it as running again
        self._http.send("PUT", path, body=body, about_submission=True)

    def _refuse_other_challenge(self, message: SubmissionMessage) -> None:
        if self._challenge_pk not in (None, message.challenge_pk):
            raise InvalidMessage(
                f"The message is for challenge {message.challenge_pk}, this installation serves {self._challenge_pk}",
                "EvalAI's development mode puts every challenge on one queue",
            )


def _refuse_cancelled(row: SubmissionRow) -> None:
    if row.status is SubmissionStatus.CANCELLED:
        raise SubmissionCancelled(f"Submission {row.pk} of team {row.team_name} was cancelled", "EvalAI says so now")
