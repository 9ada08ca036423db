"""Everything that the server remembers. One lock guards it: each request runs alone."""

import hashlib
import json
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from embedded.evalai_standin.config import Challenge, Config, Phase, Split, Team, User
from embedded.evalai_standin.faults import Fault, Faults, throttled_answer
from embedded.evalai_standin.queue import Publisher, queue_message
from embedded.evalai_standin.responses import Refusal, deny
from evaluation.submission.model import SubmissionStatus


@dataclass
class Submission:
    """A row of EvalAI's table. Files are paths below /media/; `image` is what its input file says."""

    pk: int
    team: Team
    created_by: int
    challenge: int
    phase: int
    image: object
    submitted_at: datetime
    input_file: str
    status: SubmissionStatus = SubmissionStatus.SUBMITTED
    started_at: datetime | None = None
    completed_at: datetime | None = None
    rerun_resumed_at: datetime | None = None
    stdout_file: str | None = None
    stderr_file: str | None = None
    environment_log_file: str | None = None
    submission_result_file: str | None = None
    job_name: list[str] = field(default_factory=list)
    metadata: object = None
    deleted: bool = False
    texts: dict[str, object] = field(default_factory=dict)  # method_name and the other fields for people


@dataclass(frozen=True)
class StatusWrite:
    """A status that the server accepted; `digest` differs where the reports differ."""

    at: datetime
    submission: int
    status: SubmissionStatus
    by: str  # a user's name
    digest: str


@dataclass
class LeaderboardEntry:
    pk: int
    submission: int
    split: int
    result: dict[str, object]


class State:
    """The app's state; tests read it, add submissions and faults to it, and may move its clock."""

    def __init__(self, config: Config, publish: Publisher, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.lock = threading.RLock()
        self.submissions: dict[int, Submission] = {}
        self.entries: list[LeaderboardEntry] = []
        self.media: dict[str, bytes] = {}
        self.history: list[StatusWrite] = []  # which the real server does not keep
        self.storage_answers = True  # of the files that teams uploaded
        self._faults = Faults()
        self._outage: tuple[Fault, float] | None = None
        self._publish = publish
        self._clock = clock
        self._seen: dict[str, deque[float]] = defaultdict(deque)
        self._next_submission = config.first_submission

    # For tests.

    def fail(self, fault: Fault, times: int = 1, path: str = "", method: str = "") -> None:
        """The next `times` requests whose path contains `path` meet the fault."""
        with self.lock:
            self._faults.add(fault, times, path, method)

    def fail_for(self, fault: Fault, seconds: float) -> None:
        """Every request of the next so many seconds meets the fault."""
        with self.lock:
            self._outage = (fault, self._clock() + seconds)

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            fault, until = self._outage or (None, 0.0)
            return fault if self._clock() < until else self._faults.take(method, path)

    # Who and what there is.

    def challenge(self, pk: int) -> Challenge | None:
        return next((challenge for challenge in self.config.challenges if challenge.pk == pk), None)

    def phase(self, pk: int | None) -> Phase | None:
        return next((phase for phase in self.config.phases if phase.pk == pk), None)

    def split(self, pk: int) -> Split | None:
        return next((split for split in self.config.splits if split.pk == pk), None)

    def team_of(self, user: User) -> Team | None:
        return next((team for team in self.config.teams if user.name in team.members), None)

    def is_host(self, user: User, challenge: int) -> bool:
        found = self.challenge(challenge)
        return found is not None and user.name in found.hosts

    def known_submission(self, pk: int | None) -> Submission:
        """As the framework's look-up does; raises a 404 with `detail`."""
        if pk is None or pk not in self.submissions:
            raise deny(404, f"Submission {pk} does not exist")
        return self.submissions[pk]

    # Changes.

    def add_submission(self, team: Team, user: User, phase: Phase, image: object, pk: int | None = None) -> Submission:
        number = self._next_submission if pk is None else pk
        self._next_submission = max(self._next_submission, number + 1)
        file = f"{_folder(phase.challenge, phase.pk, number)}/{uuid.uuid4()}.json"
        row = Submission(number, team, user.pk, phase.challenge, phase.pk, image, now(), file)
        self.submissions[number] = row
        self.set_status(row, row.status, user.name)
        return row

    def copy_for_re_run(self, old: Submission, by: str) -> Submission:
        """The new row of a re-run; it inherits times, job names and the input file of the old one."""
        row = replace(
            old,
            pk=self._next_submission,
            status=SubmissionStatus.SUBMITTED,
            rerun_resumed_at=now(),
            job_name=list(old.job_name),
            texts=dict(old.texts),
        )
        self._next_submission += 1
        self.submissions[row.pk] = row
        self.set_status(row, row.status, by)
        return row

    def set_status(self, row: Submission, status: SubmissionStatus, by: str, content: object = None) -> None:
        """`content` is what was sent along with it."""
        row.status = status
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]
        self.history.append(StatusWrite(now(), row.pk, status, by, digest))

    def store(self, row: Submission, content: str, ending: str = "txt") -> str:
        """Keep a file of the submission; returns its path below /media/."""
        path = f"{_folder(row.challenge, row.phase, row.pk)}/{uuid.uuid4()}.{ending}"
        self.media[path] = content.encode()
        return path

    def publish(self, row: Submission, content: dict[str, object]) -> None:
        challenge = self.challenge(row.challenge)
        if challenge is not None and challenge.queue_url is not None:
            self._publish(queue_message(challenge.queue_url, content, row.phase, row.team.pk))

    def count_request(self, who: str) -> None:
        """Raises 429 for the request that is one too many within 60 s, over all endpoints."""
        seen, moment = self._seen[who], self._clock()
        while seen and seen[0] <= moment - 60:
            seen.popleft()
        if len(seen) >= self.config.requests_per_minute:
            raise Refusal(throttled_answer(max(1, round(seen[0] + 60 - moment))))
        seen.append(moment)


def _folder(challenge: int, phase: int, submission: int) -> str:
    return f"submission_files/challenge_{challenge}/phase_{phase}/submission_{submission}"


def now() -> datetime:
    return datetime.now(UTC)
