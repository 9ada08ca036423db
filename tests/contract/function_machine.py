"""A machine of moto's Batch that runs a function's container: its command, as a process with what Batch gives it."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.batch.models import batch_backends

from batch_jobs.functions import FunctionLimits
from blocks.batch_tasks import BatchTasks
from tests.contract.aws_blocks import credentials_of
from tests.contract.batch_harness import HOST_LOST, create_queues, deploy
from tests.contract.batch_on_moto import TASK_ENDED, Ended, TaskJob, teach

BUCKET, DEFINITION = "values-of-functions", "leaderboard-function"


class Clock:
    """Whoever reads it lets it go on: two polls lie `step` seconds apart, however fast they are."""

    def __init__(self, step: float) -> None:
        self.step = step
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self.step
        return self._now


@dataclass
class FunctionMachine:
    """`waits_for`: so many looks at a job until there is a machine, or a reason that stays."""

    aws: dict[str, Any]
    workdir: Path
    reason: str | None = None  # Batch's for having no machine; None while there is one
    losses: int = 0  # so many attempts end with their instance
    jobs: list[TaskJob] = field(default_factory=list)  # one entry an attempt

    def __post_init__(self) -> None:
        teach(self)
        create_queues(self.aws)
        given = {"Image": "registry/functions:1", "ImageRepository": "arn:aws:ecr:us-west-2:1:repository/functions"}
        # moto makes no policy list out of an empty parameter
        self._batch = batch_backends["123456789012"][self.aws["region_name"]]
        deploy(self.aws, "batch-functions", BucketName=BUCKET, **given)

    def tasks(self, **changes: Any) -> BatchTasks:
        """The block, as `leaderboard batch setup` saves it."""
        fields: dict[str, Any] = {"definition": DEFINITION, "bucket": BUCKET, "credentials": credentials_of(self.aws)}
        return BatchTasks(**{**fields, **changes})

    def statuses(self, name: str) -> list[str]:
        """Of all jobs of that name, oldest first."""
        return [_status(job) for job in self._submitted if job.job_name == name]

    def names(self, status: str | None = None) -> list[str]:
        """Of all jobs, or of those with that status."""
        return [job.job_name for job in self._submitted if status in (None, _status(job))]

    @property
    def _submitted(self) -> list[TaskJob]:
        return [job for job in list(self._batch._jobs.values()) if isinstance(job, TaskJob)]

    # What follows is the machine: it runs in the thread of a job.

    def waits(self, job: TaskJob) -> str | None:
        return self.reason

    def run(self, job: TaskJob, attempt: int) -> Ended:
        self.jobs.append(job)
        if len(self.jobs) <= self.losses:
            return Ended(HOST_LOST)
        (container,) = job.containers()
        command = [sys.executable if word == "python" else word for word in container["command"]]
        log = self.workdir / f"{job.job_id}-{attempt}.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, env=self._environment(job, container), stdout=output, stderr=output)
        job.runs()
        while process.poll() is None and not job.stop:
            time.sleep(0.02)
        process.kill()
        code = process.wait()
        self._ship(job, container, log)
        return Ended(TASK_ENDED, {} if job.stop else {container["name"]: code if code >= 0 else 128 - code})

    def _environment(self, job: TaskJob, container: dict[str, Any]) -> dict[str, str]:
        """The task role's credentials come from moto, which gives any; AWS_BATCH_JOB_ID is Batch's own."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "AWS_ENDPOINT_URL": self.aws["endpoint_url"],
            "AWS_ACCESS_KEY_ID": "task",
            "AWS_SECRET_ACCESS_KEY": "task",
            "AWS_BATCH_JOB_ID": job.job_id,
            **{each["name"]: each["value"] for each in container["environment"]},
        }

    def _ship(self, job: TaskJob, container: dict[str, Any], log: Path) -> None:
        group, stream = container["logConfiguration"]["options"]["awslogs-group"], f"function/{job.job_id}"
        logs = job._log_backend
        logs.ensure_log_stream(group, stream)
        at = int(time.time() * 1000)
        lines = [{"timestamp": at, "message": line} for line in log.read_text(errors="replace").splitlines()]
        if lines:
            logs.put_log_events(group, stream, lines)
        job.streams[container["name"]] = stream


def _status(job: TaskJob) -> str:
    return str(getattr(job.status, "value", job.status))


QUICK = FunctionLimits(poll_seconds=0.05)
