"""What can be seen of a submission from outside: EvalAI's status, the ledger's row, the shards' progress in S3."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from botocore.exceptions import BotoCoreError, ClientError

from deployments.stack_state import StackState
from embedded.aws import EmbeddedAws
from embedded.evalai_website import EvalAIWebsite
from evaluation import storage_keys
from evaluation.errors import DeadlineExceeded, ServiceUnavailable
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.pair.protocol import parse_progress
from evaluation.shards import ENDED, Shard, ShardState, parse_plan
from evaluation.submission.model import SubmissionStatus, parse_phase

OVER = frozenset({SubmissionStatus.FINISHED, SubmissionStatus.FAILED, SubmissionStatus.CANCELLED})
LOOK_SECONDS = 0.5
# EvalAI allows 60 requests a minute; others ask it as well.
ASK_EVALAI_SECONDS = 4.0


@dataclass(frozen=True)
class Progress:
    """A snapshot of a submission."""

    submission: int
    phase: str
    team: int
    evalai: SubmissionStatus
    row: Mapping[str, str] = field(default_factory=dict)  # the ledger's, every value as text
    shards: tuple[ShardProgress, ...] = ()
    stdout_file: str = ""  # addresses of what EvalAI shows the team: of a result, of a failure
    stderr_file: str = ""

    @property
    def routes_done(self) -> int:
        return sum(shard.routes_done for shard in self.shards)

    @property
    def routes_total(self) -> int:
        return sum(shard.routes_total for shard in self.shards)

    @property
    def over(self) -> bool:
        """EvalAI and the ledger agree that it has ended; a cancelled one that never started has no row.

        So has one that is held: it goes on only when an operator decides.
        """
        recorded = self.row.get("status")
        if recorded is None:
            return self.evalai is SubmissionStatus.CANCELLED
        if "end-time" not in self.row:  # the outcome is kept; its report's pages may still be made
            return False
        return recorded == OutcomeStatus.HELD or (self.evalai in OVER and recorded == self.evalai)


def _stopped(shard: ShardProgress) -> ShardProgress:
    """A shard of a submission that is over; the last word of one that was stopped may be that it drives."""
    if shard.state in ENDED:
        return shard
    return replace(shard, state=ShardState.GONE, detail="stopped with the submission")


def in_time(
    snapshots: Iterable[Progress], seconds: float, cause: str, remedy: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """The snapshots until the submission is over; raises DeadlineExceeded at one that comes after so many seconds."""
    deadline = clock() + seconds
    for seen in snapshots:
        yield seen
        if not seen.over and clock() > deadline:
            summary = f"Submission {seen.submission} is still {seen.evalai.value} after {seconds:g} s"
            raise DeadlineExceeded(summary, cause, remedy)


class Observer:
    """Follows submissions of a running stack."""

    def __init__(self, state: StackState, website: EvalAIWebsite) -> None:
        aws = EmbeddedAws(state.aws_url, state.region)
        self._s3 = aws.s3
        self._dynamodb = aws.dynamodb
        self._website = website
        self._codenames = {pk: codename for codename, pk in state.phases.items()}

    def snapshot(self, submission: int) -> Progress:
        """Raises ServiceUnavailable, or UnknownSubmission."""
        shown = self._website.submission(submission)
        phase = self._codenames[shown.phase_pk]
        seen = Progress(submission, phase, shown.team_pk, shown.status)
        return self.refresh(replace(seen, stdout_file=shown.stdout_file, stderr_file=shown.stderr_file))

    def refresh(self, seen: Progress) -> Progress:
        """Read S3 and the ledger again, not EvalAI."""
        cluster = parse_phase(seen.phase).cluster
        try:
            shards = self._shards(cluster, seen.submission)
            seen = replace(seen, row=self._row(cluster, seen.team, seen.submission), shards=shards)
            return replace(seen, shards=tuple(map(_stopped, shards))) if seen.over else seen
        except (ClientError, BotoCoreError) as error:
            raise ServiceUnavailable("The embedded AWS does not answer", str(error)) from error

    def follow(self, submission: int) -> Iterator[Progress]:
        """A snapshot twice a second until the submission is over; EvalAI is asked less often, and once at the end."""
        seen = self.snapshot(submission)
        asked = time.monotonic()
        while True:
            yield seen
            if seen.over:
                return
            time.sleep(LOOK_SECONDS)
            try:
                seen = self.refresh(seen)
                waited = time.monotonic() - asked
                if waited > ASK_EVALAI_SECONDS or (seen.row.get("status") in OVER and waited > 1):
                    asked = time.monotonic()
                    seen = self.snapshot(submission)
            except ServiceUnavailable:  # the submission goes on; the next snapshot may succeed
                continue

    def result(self, submission: int, phase: str) -> dict[str, float]:
        """The metrics that EvalAI was sent, label -> value; empty where the submission has none."""
        body = self._read(parse_phase(phase).cluster, storage_keys.result_key(submission, storage_keys.EVALAI_FORM))
        form = json.loads(body) if body else []
        return dict(form[0]["accuracies"]) if form else {}

    def file(self, seen: Progress, name: str) -> bytes | None:
        """A file of the submission's folder, or None where there is none."""
        return self._read(parse_phase(seen.phase).cluster, storage_keys.result_key(seen.submission, name))

    def _row(self, cluster: str, team: int, submission: int) -> dict[str, str]:
        key = {"team-id": {"S": str(team)}, "submission-id": {"S": str(submission)}}
        item = self._dynamodb.get_item(TableName=cluster, Key=key, ConsistentRead=True).get("Item", {})
        return {name: str(next(iter(value.values()))) for name, value in item.items()}

    def _shards(self, cluster: str, submission: int) -> tuple[ShardProgress, ...]:
        plan = self._read(cluster, storage_keys.plan_key(submission))
        if plan is None:
            return ()
        shards, repetitions = parse_plan(plan, storage_keys.plan_key(submission))
        return tuple(self._shard(cluster, submission, shard, repetitions) for shard in shards)

    def _shard(self, cluster: str, submission: int, shard: Shard, repetitions: int) -> ShardProgress:
        body = self._read(cluster, storage_keys.progress_key(submission, shard.index))
        progress = parse_progress(body) if body else None
        total = len(shard.routes) * repetitions
        if progress is None:
            return ShardProgress(shard.index, ShardState.WAITING, 0, total, "waits for a node")
        return ShardProgress(shard.index, progress.state, progress.routes_done, total, progress.detail)

    def _read(self, bucket: str, key: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
