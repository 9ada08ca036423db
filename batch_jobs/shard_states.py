"""What a shard is doing, read from its Batch job: pure, and in words that a person knows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batch_jobs.job_description import BatchJob
from batch_jobs.shard_failures import failure_of_job
from evaluation.pair.diagnosis import SUPERVISOR
from evaluation.pair.protocol import PairExitCode
from evaluation.pair.shard_limits import ShardTimeouts, failed, overdue, running, within_limits
from evaluation.queue_place import QueuePlace
from evaluation.shards import ShardState, ShardStatus

_ACCEPTED = {
    "SUBMITTED": "accepted: Batch has not evaluated it yet",
    "PENDING": "accepted: Batch waits for what it depends on",
    "RUNNABLE": "no node has room yet",
}


@dataclass(frozen=True)
class Observed:
    """What the poller adds to Batch's answer."""

    now: datetime
    since: datetime  # when the job came into its present state, as far as the poller knows
    deadline_seconds: float
    why: str = ""  # it waits
    place: QueuePlace | None = None  # where Batch says it


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
        return replace(status, detail=f"it is being ended from outside; {status.detail}")
    if status.state is ShardState.FAILED or not job.losses or status.state is ShardState.DRIVING:
        return status
    lost = f"its instance was lost ({job.losses[-1] or 'no reason given'}), no budget is charged"
    return replace(status, state=ShardState.RETRYING, detail=f"{lost}; {status.detail}")


def _ended(index: int, job: BatchJob, seen: Observed) -> ShardStatus:
    supervisor = job.containers.get(SUPERVISOR)
    # The supervisor ends with FINISHED when everything is in S3, whatever becomes of the agent's container after that.
    finished = supervisor is not None and supervisor.exit_code == PairExitCode.FINISHED
    if job.status == "SUCCEEDED" or finished:
        return ShardStatus(index, ShardState.FINISHED, "every route is driven", job.stopped)
    return failed(index, failure_of_job(job, seen.deadline_seconds), job.stopped)


def _living(index: int, job: BatchJob, seen: Observed, timeouts: ShardTimeouts) -> ShardStatus:
    # Batch's timeout starts again with each attempt; the shard's deadline does not.
    if late := overdue(index, job.first_started, seen.deadline_seconds, seen.now, timeouts):
        return late
    if job.status in _ACCEPTED:
        return _waiting(index, job, seen, timeouts)
    if job.status == "STARTING":
        detail = "scheduled; the images are being pulled"
        pulling = ShardStatus(index, ShardState.PULLING, detail, seen.since)
        return within_limits(pulling, seen.now, timeouts, job.reason or "Batch does not say why")
    return running(index, job.started or seen.since, seen.now, timeouts)


def _waiting(index: int, job: BatchJob, seen: Observed, timeouts: ShardTimeouts) -> ShardStatus:
    state = _ACCEPTED[job.status] + (f": {seen.why}" if seen.why else "")
    detail = "; ".join(filter(None, (state, _where(seen.place))))
    # Before the first attempt the job's own creation counts, so that a new poller does not begin to count again.
    since = seen.since if job.losses else job.created
    waiting = ShardStatus(index, ShardState.WAITING, detail, since, queue=seen.place)
    return within_limits(waiting, seen.now, timeouts, f"{job.status} since {since:%Y-%m-%d %H:%M} UTC, {detail}")


def _where(place: QueuePlace | None) -> str:
    return f"queued: {place.position} of {place.waiting} at the front of its queue" if place else ""
