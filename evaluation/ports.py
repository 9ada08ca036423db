"""What the flows need of the world. Blocks and backends implement these; tests bring fakes.

Methods of the synchronous ports block and are called in threads. Every method raises only errors of
`evaluation.errors`: TransientError where the same call may succeed later, NeedsOperator where it cannot.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.shards import ShardJob, ShardStatuses
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import Phase, Submission, SubmissionStatus


class ListedSubmission(Protocol):
    """A submission in EvalAI's list. Times are UTC."""

    @property
    def pk(self) -> int: ...
    @property
    def phase_pk(self) -> int: ...
    @property
    def team_pk(self) -> int: ...
    @property
    def team_name(self) -> str: ...
    @property
    def status(self) -> SubmissionStatus: ...
    @property
    def input_file(self) -> str:
        """Address of what the team handed in."""

    @property
    def submitted_at(self) -> datetime | None: ...
    @property
    def rerun_resumed_at(self) -> datetime | None: ...
    @property
    def withdrawn(self) -> bool:
        """Cancelled or deleted by its team."""


class ListedSubmissions(Protocol):
    """EvalAI's list."""

    @property
    def unreadable(self) -> Sequence[str]:
        """A sentence for each row that had to be left out."""

    def __iter__(self) -> Iterator[ListedSubmission]: ...


class EvaluationServer(Protocol):
    """EvalAI."""

    def submissions(
        self, challenge: int, since: datetime | None = None, also: Collection[int] = ()
    ) -> ListedSubmissions:
        """The challenge's submissions by id.

        With `since` only what was submitted after that moment or waits or runs (`partially_evaluated` is not asked
        for), and those of `also` that exist.
        """

    def list_once(
        self, challenge: int, since: datetime, is_ours: Callable[[], bool]
    ) -> Iterable[ListedSubmission] | None:
        """What was submitted after that moment, in one request that is not repeated.

        `is_ours` is asked right before it is sent; None where it says no.
        """

    def submission(self, message: SubmissionMessage, phase: Phase, row: ListedSubmission | None = None) -> Submission:
        """The submission as the list's `row` shows it, else as EvalAI does now; raises UnknownSubmission."""

    def submission_row(self, submission: int) -> ListedSubmission:
        """The submission as EvalAI's list shows it, now; raises UnknownSubmission."""

    def status(self, submission: int) -> SubmissionStatus:
        """The submission's status now; raises UnknownSubmission."""

    def mark_running(self, submission: Submission, job_name: str, permit: WritePermit | None = None) -> None:
        """Set the status to running unless it has ended or the permit is revoked.

        Raises SubmissionCancelled instead of overwriting a cancellation.
        """

    def report(self, report: Report) -> None:
        """Write a terminal status, re-reading the present one first; raises SubmissionCancelled, as above."""

    def report_partial(self, report: Report) -> None:
        """Show results so far; raises SubmissionCancelled, as above."""


@dataclass(frozen=True)
class Made:
    """A shared document: its body, and the numbers of the making that was begun last and of the one that made it.

    0 and 0 where there is none.
    """

    begun: int = 0
    done: int = 0
    body: bytes = b""


class SharedDocument(Protocol):
    """What all processes read and one of them at a time makes anew."""

    def read(self) -> Made: ...

    def begin(self, after: int) -> int | None:
        """The number of a new making, if `after` is still the last that was begun; None where another was quicker."""

    def publish(self, number: int, body: bytes) -> None:
        """Put the body that this making made, unless a later one is there; raises RequestRefused if it is too large."""


@dataclass(frozen=True)
class Claim:
    """The right to evaluate a submission once. `key` distinguishes a resume from a redelivery of the same message."""

    submission: int
    team: int
    key: str  # `rerun_resumed_at` in ISO 8601 UTC, or "" for a first run
    owner: str  # the flow run's id
    attempt: int  # counts successful claims of the submission from 1
    epoch: int  # which epoch of the evaluation has it; a later one may take it away
    token: str  # new at each claim: only its holder may write
    is_takeover: bool  # an earlier epoch had it: its Jobs may already run


Row = Mapping[str, object]


class SubmissionLedger(Protocol):
    """One row per submission, keyed by team and submission: the truth about who evaluates what."""

    def claim(self, submission: Submission, owner: str, epoch: int = 1) -> Claim:
        """Take the submission, atomically; raises AlreadyClaimed for any run but the first with this key.

        A later epoch for the same owner may take it from an earlier one until its row has an `end-time`.
        """

    def update(self, claim: Claim, values: Row) -> None:
        """Write attributes of the claimed row; raises AlreadyClaimed when another has taken the claim."""

    def renew(self, claim: Claim, stage: Stage | None = None) -> None:
        """Renew the lease, and set the stage that the run enters; raises AlreadyClaimed, as above."""

    def reopen(self, entry: LedgerEntry, decided: str | None = None) -> None:
        """Let a takeover run take the ended evaluation once more, to send its kept outcome; raises AlreadyClaimed.

        `decided` is the key of another outcome, which an operator has decided; else the row counts a resend.
        """

    def entries(self) -> Iterable[LedgerEntry]:
        """Every submission that was ever claimed."""

    @property
    def lease_seconds(self) -> int:
        """How long a claim counts as held after its last renewal."""

    def with_own_connection(self) -> "SubmissionLedger":
        """The same ledger over a connection of its own that never waits long: for renewals."""

    def row(self, team: int, submission: int) -> Row | None:
        """The row as it is, or None."""


class ArtifactStore(Protocol):
    """S3: one folder per submission (evaluation.storage_keys)."""

    def write(self, key: str, body: bytes, content_type: str) -> None: ...

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """Key and bytes of every object whose key begins so."""

    def read_from(self, key: str, start: int) -> bytes:
        """The object's bytes from that offset on; none where there are none."""

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its version, or None where there is none."""

    def write_version(self, key: str, body: bytes, replaced: str | None) -> bool:
        """Write JSON where the version is still the `replaced` one, None for no object; False where it is another."""

    def location(self, key: str) -> str:
        """Where a person finds it: s3://bucket/key."""


class MessageQueue(Protocol):
    """SQS, as the run that claimed a submission sees it."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Delete the message; one that is already gone is fine."""

    def extend(self, delivery: Delivery, seconds: int) -> None:
        """Hide the message for so many more seconds; one that is already gone is fine."""

    def reject(self, delivery: Delivery, body: str, reason: str) -> None:
        """Move the message to the dead-letter queue with its reason."""


class JobBackend(Protocol):
    """Runs shard Jobs somewhere: Kubernetes, AWS Batch, local processes. One contract test suite runs over all."""

    async def ensure(self, jobs: Sequence[ShardJob]) -> None:
        """Create each Job, or adopt the one of the same name. Returns when all are accepted, not when they run."""

    def watch(self, jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        """Yield every shard's status: at once, then at each change and at least every few seconds.

        Ends after yielding a snapshot in which all have ended. GONE is an end: nothing runs under that name.
        """

    async def remove(self, submission: int, attempt: int) -> None:
        """Stop and delete all Jobs of the attempt, found by label, and return only when none is left.

        Removing nothing is fine. Raises CleanupIncomplete, naming what is left, after a deadline.
        """

    async def running(self) -> frozenset[tuple[int, int]]:
        """(submission, attempt) of every Job that exists here, ended or not."""

    async def logs(self, job: ShardJob, lines: int) -> Mapping[str, str]:
        """The last lines of each process of the shard, by process name; empty where there are none."""
