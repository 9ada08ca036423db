"""A Batch job as a value: its state, its attempts, what its containers ended with. Source: DescribeJobs' answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from evaluation.pair.diagnosis import quoted

INIT = "init"  # with the containers of every backend, those of the job definition (deployments/aws/batch-shards.yaml)

# The tag of a job that was removed: Batch itself cannot delete one.
REMOVED_TAG = "leaderboard:removed"
# Reasons for TerminateJob: Batch keeps them with the job, which shows later that it was us.
REMOVED = "leaderboard: its attempt was removed"
DUPLICATE = "leaderboard: another job of this name was there first"

_DEFAULT_GROUP = "/aws/batch/job"
_ENDED = frozenset({"SUCCEEDED", "FAILED"})


@dataclass(frozen=True)
class Container:
    """`exit_code` is set once it has ended in the job's present attempt."""

    name: str
    exit_code: int | None = None
    reason: str = ""
    log_group: str = ""
    log_stream: str = ""


@dataclass(frozen=True)
class BatchJob:
    id: str
    arn: str
    name: str
    status: str  # SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED, FAILED
    reason: str  # Batch's message about that
    created: datetime
    started: datetime | None  # the present attempt
    first_started: datetime | None  # the first attempt
    stopped: datetime | None
    losses: tuple[str, ...]  # why each attempt before the present one ended
    ending: bool  # somebody has terminated it
    containers: Mapping[str, Container]
    tags: Mapping[str, str]
    vcpus: float
    gpus: int

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

    @property
    def removed(self) -> bool:
        """Whether it is gone for us, though Batch still lists it."""
        return self.ended and (REMOVED_TAG in self.tags or REMOVED in self.reason or DUPLICATE in self.reason)


def read_job(job: Mapping[str, Any]) -> BatchJob:
    """Read one entry of DescribeJobs."""
    attempts = job.get("attempts") or []
    status = str(job["status"])
    entries = _task(job.get("ecsProperties") or {})
    last = {each["name"]: each for each in _task(attempts[-1])} if attempts and status in _ENDED else {}
    past = attempts[:-1] if status in _ENDED else attempts
    return BatchJob(
        id=str(job["jobId"]),
        arn=str(job.get("jobArn") or ""),
        name=str(job["jobName"]),
        status=status,
        reason=quoted(job.get("statusReason")),
        created=_time(job.get("createdAt")) or datetime.fromtimestamp(0, UTC),
        started=_time(job.get("startedAt")),
        first_started=_time(
            next((each["startedAt"] for each in attempts if each.get("startedAt")), job.get("startedAt"))
        ),
        stopped=_time(job.get("stoppedAt")),
        losses=tuple(quoted(attempt.get("statusReason")) for attempt in past),
        ending=bool(job.get("isTerminated") or job.get("isCancelled")),
        containers={each["name"]: _container({**last.get(each["name"], {}), **each}) for each in entries},
        tags=job.get("tags") or {},
        vcpus=sum(_required(each, "VCPU") for each in entries),
        gpus=int(sum(_required(each, "GPU") for each in entries)),
    )


def _task(properties: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The containers of a job's one task."""
    return [each for task in properties.get("taskProperties") or [] for each in task.get("containers") or []]


def _container(entry: Mapping[str, Any]) -> Container:
    options = (entry.get("logConfiguration") or {}).get("options") or {}
    return Container(
        name=str(entry["name"]),
        exit_code=entry.get("exitCode"),
        reason=quoted(entry.get("reason")),
        log_group=str(options.get("awslogs-group") or _DEFAULT_GROUP),
        log_stream=str(entry.get("logStreamName") or ""),
    )


def _required(entry: Mapping[str, Any], kind: str) -> float:
    return sum(float(need["value"]) for need in entry.get("resourceRequirements") or [] if need.get("type") == kind)


def _time(milliseconds: Any) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
