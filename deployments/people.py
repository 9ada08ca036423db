"""What people do at EvalAI: a participant submits and cancels, a host resumes. Through its public HTTP API only."""

import json
from collections.abc import Mapping
from typing import Any

import requests

from deployments.stack_state import StackState
from evaluation.errors import RequestRefused, ServiceUnavailable

TIMEOUT_SECONDS = 20


class EvalAIWebsite:
    """The embedded EvalAI as its participants and hosts see it. Every method raises errors of `evaluation.errors`."""

    def __init__(self, state: StackState) -> None:
        self._state = state
        self._challenge = state.challenge_pk
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business with 127.0.0.1

    def submit(self, phase_pk: int, image: str, team: str | None = None) -> int:
        """Create a submission as EvalAI's own command line does; EvalAI then sends the message. Returns its pk."""
        path = f"/api/jobs/challenge/{self._challenge}/challenge_phase/{phase_pk}/submission/"
        upload = {"input_file": ("submission.json", json.dumps({"submitted_image_uri": image}), "application/json")}
        form = {"status": "submitting", "method_name": image.rpartition(":")[2]}
        return int(self._call("POST", path, self._state.team_token(team), data=form, files=upload)["id"])

    def cancel(self, submission: int) -> None:
        """As a member of the submission's own team."""
        team = str(self.submission(submission)["participant_team_name"])
        path = f"/api/jobs/challenges/{self._challenge}/submissions/{submission}/update_submission_meta/"
        self._call("PATCH", path, self._state.team_token(team), json={"status": "cancelled"})

    def resume(self, submission: int) -> None:
        self._call("POST", f"/api/jobs/submissions/{submission}/resume/", self._state.host_token)

    def submission(self, submission: int) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._call("GET", f"/api/jobs/submission/{submission}", self._state.host_token)
        return answer

    def submissions(self) -> list[Mapping[str, Any]]:
        """All submissions of the challenge, the newest first."""
        found: Any = self._call("GET", f"/api/jobs/challenge/{self._challenge}/submission/", self._state.host_token)
        return sorted(found, key=lambda row: int(row["id"]), reverse=True)

    def _call(self, method: str, path: str, token: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            answer = self._session.request(
                method, self._state.evalai_url + path, headers=headers, timeout=TIMEOUT_SECONDS, **arguments
            )
        except requests.RequestException as error:
            raise ServiceUnavailable("The embedded EvalAI does not answer", str(error), "Is the stack up?") from error
        if answer.status_code == requests.codes.too_many_requests or answer.status_code >= 500:
            raise ServiceUnavailable("EvalAI is too busy", f"it answers {answer.status_code}")
        if not answer.ok:
            raise RequestRefused(f"EvalAI refuses to {method} {path}", answer.text[:300])
        return answer.json()
