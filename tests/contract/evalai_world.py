"""EvalAI's stand-in server as the tests of its client see it: its state, its queue, and clients of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pydantic import SecretStr

from embedded.evalai_standin import (
    Challenge,
    Config,
    Phase,
    QueueMessage,
    Split,
    State,
    Team,
    User,
    create_app,
    replace_state,
    serving,
)
from embedded.evalai_standin.state import Submission
from evalai_api.budget import Urgency
from evalai_api.client import EvalAIClient
from evalai_api.http import RetryPolicy, Timeouts
from evaluation.lifecycle.report import Report
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import Submission as Evaluated
from evaluation.submission.model import SubmissionStatus, parse_phase

HOST, PARTICIPANT, STRANGER = "host-token-7f3a", "participant-token-91", "nobody-knows-this-token"
LABELS = ("Driving score", "Route completion")
FINISHED_RESULT = [
    {"split": "leaderboard", "show_to_participant": True, "accuracies": {"Driving score": 61.5, "Route completion": 80}}
]
QUICK = RetryPolicy(attempts=3, total_seconds=30, first_wait=0.01, longest_wait=0.02)
PHASE = parse_phase("leaderboard-20-SENSORS")
TEAMS = tuple(Team(pk=pk, name=f"Team {pk}", members=("participant",) if pk == 1 else ()) for pk in range(1, 102))


@dataclass
class World:
    """The server's state and address, the queue, and what the clients took of their budget."""

    url: str
    state: State
    queue: list[QueueMessage]
    requests: int = 0
    taken: list[Urgency] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    before_request: Callable[[int], None] | None = None

    def client(self, token: str = HOST, read: float = 30.0, retries: RetryPolicy = QUICK) -> EvalAIClient:
        return EvalAIClient(
            self.url, SecretStr(token), self, challenge_pk=1, timeouts=Timeouts(10.0, read), retries=retries
        )

    def take(self, requests: int, urgency: Urgency) -> None:
        """As the budget of its clients, which it is."""
        for _ in range(requests):
            self.requests += 1
            self.taken.append(urgency)
            if self.before_request:
                self.before_request(self.requests)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def add(self, status: SubmissionStatus = SubmissionStatus.SUBMITTED, team: int = 1, phase: int = 3) -> Submission:
        found = self.state.phase(phase)
        assert found is not None
        row = self.state.add_submission(TEAMS[team - 1], self.state.config.users[1], found, "registry.test/team:1")
        row.status = status
        return row


@contextmanager
def running_standin() -> Iterator[Callable[[], World]]:
    """A server that runs meanwhile; each call empties it and makes its world anew."""
    config = world_config()
    app = create_app(config, publish=[].append)
    with serving(app) as url:

        def empty() -> World:
            queue: list[QueueMessage] = []
            state = State(config, queue.append)
            replace_state(app, state)
            return World(url, state, queue)

        yield empty


def world_config() -> Config:
    """The people, the phases and the leaderboards of these tests."""
    return Config(
        users=(User(pk=1, name="host", token=HOST), User(pk=2, name="participant", token=PARTICIPANT)),
        challenges=(Challenge(pk=1, hosts=("host",), queue_url="http://sqs.test/1/queue"),),
        phases=(
            Phase(pk=3, challenge=1, codename="leaderboard-20-SENSORS"),
            Phase(pk=4, challenge=1, codename="leaderboard-20-MAP"),
        ),
        splits=(Split(pk=30, phase=3, labels=LABELS), Split(pk=40, phase=4, labels=LABELS)),
        teams=TEAMS,
        requests_per_minute=1000,
    )


def evaluated(row: Submission) -> Evaluated:
    return Evaluated(row.pk, 1, row.phase, PHASE, row.team.pk, row.team.name, row.status, None, None, None)


def report(row: Submission, status: SubmissionStatus, **more: object) -> Report:
    result = FINISHED_RESULT if status in (SubmissionStatus.FINISHED, SubmissionStatus.PARTIALLY_EVALUATED) else ()
    return replace(Report(evaluated(row), status, result, "out", "err", "{}"), **more)  # type: ignore[arg-type] - a helper


def message(row: Submission, **more: object) -> SubmissionMessage:
    content = {"challenge_pk": "1", "phase_pk": str(row.phase), "submission_pk": row.pk} | more
    return SubmissionMessage.model_validate(content)
