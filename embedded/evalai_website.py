"""What people do at the embedded EvalAI: a participant submits and cancels, a host resumes and lists."""

from pydantic import SecretStr

from deployments.stack_state import StackState
from evalai_api.budget import ProcessBudget
from evalai_api.client import EvalAIClient
from evalai_api.fields import SubmissionRow
from evalai_api.http import RetryPolicy, Timeouts

# EvalAI allows a user 60 requests a minute; the rest is for a second command beside this one.
REQUESTS_PER_MINUTE = 50
TIMEOUTS = Timeouts(connect=5, read=20)
# A person waits for the answer; a command that follows a submission polls again anyway.
RETRIES = RetryPolicy(attempts=3, total_seconds=10)


class EvalAIWebsite:
    """Each person with a client and a request budget of their own. Raises what `EvalAIClient` does."""

    def __init__(self, state: StackState) -> None:
        self._state = state
        self._clients: dict[str, EvalAIClient] = {}

    def submit(self, phase_pk: int, image: str, team: str | None = None) -> int:
        """Submit an image as a member of the team, and return the submission's id; EvalAI then sends the message."""
        method_name = image.rpartition(":")[2]
        return self._participant(team).submit(self._state.challenge_pk, phase_pk, image, method_name)

    def cancel(self, submission: int) -> None:
        """As a member of the submission's own team."""
        team = self.submission(submission).team_name
        self._participant(team).cancel(self._state.challenge_pk, submission)

    def resume(self, submission: int) -> None:
        self._host.resume(submission)

    def submission(self, submission: int) -> SubmissionRow:
        return self._host.submission_row(submission)

    def submissions(self) -> list[SubmissionRow]:
        """All submissions of the challenge, the newest first."""
        return self._host.submissions(self._state.challenge_pk)[::-1]

    @property
    def _host(self) -> EvalAIClient:
        return self._client(self._state.host_token)

    def _participant(self, team: str | None) -> EvalAIClient:
        return self._client(self._state.team_token(team))

    def _client(self, token: str) -> EvalAIClient:
        if token not in self._clients:
            budget = ProcessBudget(REQUESTS_PER_MINUTE)
            self._clients[token] = EvalAIClient(
                self._state.evalai_url, SecretStr(token), budget, timeouts=TIMEOUTS, retries=RETRIES
            )
        return self._clients[token]
