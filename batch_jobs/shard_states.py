"""What a shard is doing, read from its Batch job: pure, and in words that a person knows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from batch_jobs.job_description import SUPERVISOR, BatchJob
from batch_jobs.shard_failures import failure_of_job
from evaluation.errors import Failure, Fault
from evaluation.pair.protocol import PairExitCode
from evaluation.shards import ShardState, ShardStatus

_RESUME = "Resume the submission: driven routes are kept."
_ACCEPTED = {
    "SUBMITTED": "accepted: Batch has yet to look at it",
    "PENDING": "accepted: Batch waits for what it depends on",
    "RUNNABLE": "no machine has room yet",
}


@dataclass(frozen=True)
class ShardTimeouts:
    """How long, in seconds, a shard may be in a state that it may never leave; then it has failed."""

    waiting_seconds: float = 24 * 3600.0  # for a machine; a job that is stuck in RUNNABLE stays there for ever
    pulling_seconds: float = 2 * 3600.0  # images and private contents
    overdue_seconds: float = 900.0  # after a job's deadline, for Batch to end it
    warmup_seconds: float = 60.0  # of the simulator


@dataclass(frozen=True)
class Observed:
    """What the watcher adds to Batch's answer."""

    now: datetime
    since: datetime  # when the job came into its present state, as far as the watcher knows
    deadline_seconds: float
    why: str = ""  # it waits
    supervisor: str = ""  # the supervisor's last words, of a job that failed


def chosen(jobs: Sequence[BatchJob]) -> BatchJob | None:
    """Of all jobs with a shard's name, oldest first, the one that counts: the oldest that lives, else the last end.

    What we ended ourselves does not count.
    """
    ours = [job for job in jobs if not job.removed]
    living = [job for job in ours if not job.ended]
    return living[0] if living else (ours[-1] if ours else None)


def duplicates(jobs: Sequence[BatchJob]) -> list[BatchJob]:
    """The living jobs that must not be: Batch gives every job a new id and lets two have one name."""
    living = [job for job in jobs if not job.ended]
    return [job for job in living[1:] if not job.ending]


def shard_status(index: int, job: BatchJob | None, seen: Observed, timeouts: ShardTimeouts) -> ShardStatus:
    """The state of one shard."""
    if job is None:
        return ShardStatus(index, ShardState.GONE, "Batch has no job of that name that was not removed")
    if job.ended:
        return _ended(index, job, seen)
    status = _living(index, job, seen, timeouts)
    if job.ending:
        return replace(status, detail=f"somebody is ending it; {status.detail}")
    if status.state is ShardState.FAILED or not job.losses or status.state is ShardState.DRIVING:
        return status
    lost = f"its machine was lost ({job.losses[-1] or 'no reason given'}), nobody is charged"
    return replace(status, state=ShardState.RETRYING, detail=f"{lost}; {status.detail}")


def _ended(index: int, job: BatchJob, seen: Observed) -> ShardStatus:
    supervisor = job.containers.get(SUPERVISOR)
    # The supervisor ends with FINISHED when everything is in S3, whatever becomes of the agent's container after that.
    finished = supervisor is not None and supervisor.exit_code == PairExitCode.FINISHED
    if job.status == "SUCCEEDED" or finished:
        return ShardStatus(index, ShardState.FINISHED, "every route is driven", job.stopped)
    failure = failure_of_job(job, seen.deadline_seconds, seen.supervisor)
    return ShardStatus(index, ShardState.FAILED, failure.summary, job.stopped, failure)


def _living(index: int, job: BatchJob, seen: Observed, timeouts: ShardTimeouts) -> ShardStatus:
    # Batch's timeout begins anew with each attempt; the shard's deadline does not.
    if job.first_started and _lasts(job.first_started, seen.now, seen.deadline_seconds + timeouts.overdue_seconds):
        cause = f"its deadline of {seen.deadline_seconds / 3600:.3g} hours has passed and its job has not ended"
        return _failed(index, "The shard did not end in its time", cause)
    if job.status in _ACCEPTED:
        return _waiting(index, job, seen, timeouts)
    if job.status == "STARTING":
        if _lasts(seen.since, seen.now, timeouts.pulling_seconds):
            return _failed(index, "The shard's containers did not start", job.reason or "Batch does not say why")
        detail = "a machine is there; the images are on their way"
        return ShardStatus(index, ShardState.PULLING, detail, seen.since)
    started = job.started or seen.since
    if not _lasts(started, seen.now, timeouts.warmup_seconds):
        return ShardStatus(index, ShardState.STARTING, "the simulator is warming up", started)
    return ShardStatus(index, ShardState.DRIVING, "the agent drives its routes", started)


def _waiting(index: int, job: BatchJob, seen: Observed, timeouts: ShardTimeouts) -> ShardStatus:
    detail = _ACCEPTED[job.status] + (f": {seen.why}" if seen.why else "")
    # Before the first attempt the job's own birth counts, so that a new watcher does not begin to count again.
    since = seen.since if job.losses else job.created
    if _lasts(since, seen.now, timeouts.waiting_seconds):
        return _failed(
            index, "No machine came for the shard", f"{job.status} since {since:%Y-%m-%d %H:%M} UTC, {detail}"
        )
    return ShardStatus(index, ShardState.WAITING, detail, since)


def _failed(index: int, summary: str, cause: str) -> ShardStatus:
    failure = Failure(summary, cause, _RESUME, Fault.INFRASTRUCTURE)
    return ShardStatus(index, ShardState.FAILED, summary, None, failure)


def _lasts(since: datetime, now: datetime, seconds: float) -> bool:
    return now - since >= timedelta(seconds=seconds)
