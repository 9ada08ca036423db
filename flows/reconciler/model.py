"""What EvalAI, the ledger, Prefect and the clusters each say of a submission, and what the reconciler found."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.stages import ReconcilerTimeouts
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.model import SubmissionStatus


@dataclass(frozen=True)
class EvalAIRow:
    """A submission as EvalAI lists it. Times are UTC; `key` is the claim key that a claim made now would have."""

    pk: int
    phase_pk: int
    status: SubmissionStatus
    since: datetime | None  # when it was submitted or last resumed
    key: str


class RunState(StrEnum):
    """A flow run as far as the reconciler cares."""

    SCHEDULED = "scheduled"  # waits for its time, or for a worker
    PENDING = "pending"  # a worker has taken it, its process has not reported anything
    RUNNING = "running"
    CRASHED = "crashed"  # crashed, or failed without an outcome
    CANCELLING = "being cancelled"  # an operator cancels it in Prefect; who was to stop it may be dead as well
    CANCELLED = "cancelled"  # an operator cancelled it in Prefect
    POSTPONED = "postponed"  # ended in an outage of ours: postponed, interrupted or undelivered
    BLOCKED = "blocked"  # waits for an operator to correct the configuration
    REJECTED = "rejected"  # its message is in the dead-letter queue
    TAKEN_OVER = "taken over"  # it was alive when another run took its claim
    DONE = "done"


BEGUN = frozenset({RunState.PENDING, RunState.RUNNING, RunState.CANCELLING})


@dataclass(frozen=True)
class Run:
    """One of the submission's flow runs."""

    id: str
    state: RunState
    state_since: datetime  # for a scheduled one, when it was to start; by the reconciler's clock
    takeover: Takeover
    message: str = ""  # the state's own words


class Lease(StrEnum):
    """The lease of an open claim, as one observer knows it (evaluation.lifecycle.lease_watch)."""

    HELD = "held"
    UNCLEAR = "unclear"  # it seems to have ended, but that compares two machines' clocks: it has to be watched
    EXPIRED = "expired"  # watched for its whole time without a renewal


@dataclass(frozen=True)
class SubmissionSnapshot:
    """All that is known of one submission. None and empty mean: that system knows nothing of it."""

    submission: int
    shown: EvalAIRow | None
    entry: LedgerEntry | None
    timeouts: ReconcilerTimeouts
    shard_deadline_seconds: float
    attempts: frozenset[int] = frozenset()  # of which Jobs exist
    runs: tuple[Run, ...] = ()  # those under way; all that Prefect knows where `needs_runs` says so
    unroutable: str = ""  # why no run of ours can evaluate it
    lease: Lease = Lease.HELD  # of an entry that is open
    cluster: str = ""  # whose ledger holds the entry
    evalai_answered: bool = True


class Action(StrEnum):
    """What is safe to do. Everything is idempotent: two reconcilers at once do it once."""

    START_RUN = "start a run"  # a first run for a submission that was never queued
    TAKE_OVER = "take over"  # a takeover run for a claim whose run is dead or stuck
    REMOVE_JOBS = "remove Jobs"
    MARK_CRASHED = "mark as crashed"  # runs that Prefect shows as alive, and that are not
    RESEND_REPORT = "resend the report"
    NOTIFY_OPERATOR = "notify an operator"  # nothing is safe


@dataclass(frozen=True)
class Finding:
    submission: int
    sentence: str  # what is wrong, and what is done about it or what an operator should do
    action: Action
    attempts: tuple[int, ...] = ()  # REMOVE_JOBS
    takeover: Takeover | None = None  # TAKE_OVER
    dead_runs: tuple[str, ...] = ()  # MARK_CRASHED, TAKE_OVER, START_RUN: their ids


def notify(view: SubmissionSnapshot, sentence: str) -> Finding:
    """What only an operator can repair."""
    return Finding(view.submission, sentence, Action.NOTIFY_OPERATOR)
