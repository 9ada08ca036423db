"""AWS Batch as the contract suite sees it: our stacks in moto's server, this machine's processes as the containers."""

import json
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3

import local_jobs
from batch_jobs.api import BatchAccess
from batch_jobs.backend import BackendLimits, BatchJobBackend
from batch_jobs.removal import RemovalLimits
from batch_jobs.spec import BatchSpec
from blocks.batch_compute import batch_access
from local_jobs.run_directory import RunDirectory, end_processes
from tests.aws_templates import aws as template
from tests.contract.aws_blocks import credentials_of
from tests.contract.batch_on_moto import TASK_ENDED, Ended, TaskJob, teach
from tests.contract.pair_processes import PairProcesses, log_files

AWS = {"region_name": "us-west-2", "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
SUBMISSIONS = "arn:aws:ecr:us-east-1:123456789012:repository/demo/agent"
LEADERBOARD = "leaderboard-20"
QUEUE, ADHOC_QUEUE = "leaderboard-gpu-production", "leaderboard-gpu-adhoc"
HOST_LOST = "Host EC2 (instance i-0123456789abcdef0) terminated."
QUICK = BackendLimits(
    poll_seconds=0.2,
    explain_seconds=0.1,
    page=2,
    removal=RemovalLimits(deadline_seconds=20, first_pause_seconds=0.05, longest_pause_seconds=0.3),
)
_LOOK_SECONDS = 0.05


@dataclass
class BatchHarness(PairProcesses):
    """Jobs go through Batch's API; a job's task is a run directory of local_jobs with the pair's real scripts."""

    workdir: Path
    endpoint: str
    stuck: str | None = None  # Batch's reason for having no machine; None while there is one
    ignores_stop: bool = False  # a machine that is lost to ECS
    tasks: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)  # job, attempt, its containers

    def __post_init__(self) -> None:
        teach(self)
        self.aws = {**AWS, "endpoint_url": self.endpoint}
        create_stacks(self.aws)

    @property
    def batch(self) -> Any:
        return boto3.client("batch", **self.aws)

    def backend(self, limits: BackendLimits = QUICK, **changes: Any) -> BatchJobBackend:
        settings: dict[str, Any] = {
            "definition": f"{LEADERBOARD}-shard",
            "queue": QUEUE,
            "adhoc_queue": ADHOC_QUEUE,
            "routes_location": str(Path(local_jobs.__file__).parent / "routes" / "leaderboard-20.xml"),
            "simulator_warmup_seconds": 0.1,
        }
        return BatchJobBackend(self.access_to(self.aws), BatchSpec(**{**settings, **changes}), limits)

    @staticmethod
    def access_to(aws: dict[str, Any]) -> BatchAccess:
        return batch_access(credentials_of(aws), f"arn:aws:iam::123456789012:role/{LEADERBOARD}-batch-registrar")

    # What follows is the machine: it runs in the thread of a job.

    def waits(self, job: TaskJob) -> str | None:
        return self.stuck

    def run(self, job: TaskJob, attempt: int) -> Ended:
        containers = {each["name"]: each for each in job.containers()}
        self.tasks.append((job.job_name, attempt, containers))
        directory = RunDirectory(self.workdir.resolve() / f"{job.job_name}-{job.job_id[:8]}-{attempt}")
        seconds = (job.timeout or {}).get("attemptDurationSeconds", 3600)
        directory.accept(self._task(directory, containers, seconds), {**self._storage()})
        logs = _Logs(job, directory, containers)
        while (not job.stop or self.ignores_stop) and directory.exit is None and not directory.lost:
            logs.ship()
            time.sleep(_LOOK_SECONDS)
        lost = directory.lost
        end_processes(f"{directory.path}/", [directory.pid], grace=3, deadline=5)
        logs.ship()
        code = directory.exit or ""
        if lost:
            return Ended(HOST_LOST)
        if not code.isdigit():
            return Ended("Job attempt duration exceeded timeout" if code == "deadline" else TASK_ENDED)
        return Ended(TASK_ENDED, {"init": 0, **{name: int(code) for name in ("simulator", "agent", "supervisor")}})

    def _task(self, directory: RunDirectory, containers: dict[str, Any], seconds: float) -> dict[str, Any]:
        given = {each["name"]: each["value"] for entry in containers.values() for each in entry["environment"]}
        return self.pod(directory, given, containers["agent"]["image"], seconds)

    def _storage(self) -> dict[str, str]:
        return {
            "AWS_DEFAULT_REGION": AWS["region_name"],
            "AWS_ACCESS_KEY_ID": AWS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": AWS["aws_secret_access_key"],
            "AWS_ENDPOINT_URL": self.endpoint,
        }


class _Logs:
    """The awslogs driver: each container's output into the stream that DescribeJobs names."""

    def __init__(self, job: TaskJob, directory: RunDirectory, containers: dict[str, Any]) -> None:
        self._job = job
        self._files = log_files(directory)
        self._groups = {name: containers[name]["logConfiguration"]["options"]["awslogs-group"] for name in self._files}
        self._sent = dict.fromkeys(self._files, 0)
        self._prefix = f"batch/{job.job_id}/{len(job.past)}"

    def ship(self) -> None:
        for name, path in self._files.items():
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            new, self._sent[name] = lines[self._sent[name] :], len(lines)
            if not new:
                continue
            group, stream, logs = self._groups[name], f"{self._prefix}/{name}", self._job._log_backend
            logs.ensure_log_stream(group, stream)
            at = int(time.time() * 1000)
            logs.put_log_events(group, stream, [{"timestamp": at, "message": line} for line in new])
            self._job.streams[name] = stream
        if len(self._job.streams) == len(self._files):
            self._job.runs()


def create_stacks(aws: dict[str, Any]) -> None:
    """What docs/batch.md has a host create."""
    create_queues(aws)
    deploy(aws, "storage", Leaderboard=LEADERBOARD, BucketName=f"{LEADERBOARD}-of-the-stack")
    deploy(aws, "private-contents")
    deploy(aws, "batch-roles", Leaderboard=LEADERBOARD, SubmissionRepositories=SUBMISSIONS)
    images = {f"{name}Image": f"registry/{name.lower()}:1" for name in ("Simulator", "Leaderboard", "Logcopy")}
    times = {"WarmupSeconds": "0.1", "CopySeconds": "0.2", "PollSeconds": "0.05"}
    deploy(aws, "batch-shards", Leaderboard=LEADERBOARD, LeaderboardVersion="2.0", **images, **times)


def create_queues(aws: dict[str, Any]) -> None:
    """The four queues with their machines, and the flow runs' role."""
    ec2 = boto3.client("ec2", **aws)
    subnets = ",".join(each["SubnetId"] for each in ec2.describe_subnets()["Subnets"])
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    boto3.client("iam", **aws).create_role(RoleName="leaderboard-flows", AssumeRolePolicyDocument="{}")  # roles.yaml's
    types = {"GpuInstanceTypes": "g5.4xlarge", "CpuInstanceTypes": "m6i.4xlarge"}  # moto splits no list's default
    deploy(aws, "batch", Subnets=subnets, SecurityGroups=group, **types)


def deploy(aws: dict[str, Any], name: str, **parameters: str) -> None:
    values = {"Stage": "production", **parameters}
    boto3.client("cloudformation", **aws).create_stack(
        StackName=name,
        TemplateBody=_template(name),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )


@cache
def _template(name: str) -> str:
    """As JSON, which moto reads many times faster."""
    return json.dumps(template(name))
