"""The settings of one Kubernetes cluster that a shard's Job depends on."""

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum

from evaluation.errors import InvalidConfiguration
from k8s_jobs.kueue import Kueue

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class GpuJoin(StrEnum):
    """How the simulator gets at the GPU that was allocated to the agent's container (docs/kubernetes.md)."""

    ALL = "all"  # sees all GPUs of its node and chooses the agent's by its UUID; any Kubernetes
    ENV_FILE = "env-file"  # sees the agent's GPU only; fileKeyRef, on by default from Kubernetes 1.35
    NONE = "none"  # stand-ins, which draw nothing


@dataclass(frozen=True)
class ClusterSpec:
    """Settings of one cluster; holds no secret. Raises InvalidConfiguration that names what is missing.

    The supervisor reaches S3 either by `worker_role_arn` (EKS) or by boto3's variables in `storage_secret` (elsewhere).
    """

    namespace: str
    simulator_image: str
    leaderboard_image: str  # the evaluator and its private contents
    logcopy_image: str  # this project with boto3: the supervisor and `prepare`
    routes_location: str  # s3://bucket/key, or a file's path in the logcopy image
    region: str
    worker_role_arn: str = ""
    storage_secret: str = ""  # name of a Secret in the namespace
    storage_endpoint: str = ""  # AWS_ENDPOINT_URL where S3 is not AWS's
    storage_cidrs: tuple[str, ...] = ()  # the VPC endpoints of S3, STS, CloudWatch Logs: all that a shard's pod reaches
    service_account: str = "submission-worker"
    instance_types: tuple[str, ...] = ("g5.12xlarge",)  # empty: any node with a GPU
    log_group: str = ""  # CloudWatch's, for the pair's output
    gpu_join: GpuJoin = GpuJoin.ALL
    finished_job_seconds: int = 6 * 3600  # a backstop: the run that made a Job removes it
    simulator_warmup_seconds: float = 60
    simulator_wait_seconds: float = 3600
    copy_seconds: float = 30
    poll_seconds: float = 1
    kueue: Kueue = field(default_factory=Kueue)
    simulator_command: str = ""  # instead of the template's, for stand-ins
    evaluator_command: str = ""

    def __post_init__(self) -> None:
        for name in ("simulator_image", "leaderboard_image", "logcopy_image", "routes_location", "region"):
            if not getattr(self, name).strip():
                raise _wrong(f"{name} is missing", "every shard needs it")
        for name in ("namespace", "service_account"):
            if not _DNS_LABEL.fullmatch(getattr(self, name)):
                raise _wrong(f"{name} {getattr(self, name)!r} is not a valid name", "small letters, digits and hyphens")
        if bool(self.worker_role_arn) == bool(self.storage_secret):
            raise _wrong("The supervisor's way to S3 is unclear", "set worker_role_arn or storage_secret, one of them")
        if self.kueue.local_queue and self.kueue.cluster_queue:
            raise _wrong("The shards' queue is unclear", "set local_queue or cluster_queue, one of them")
        for queue in (self.kueue.local_queue, self.kueue.cluster_queue):
            if queue and not _DNS_LABEL.fullmatch(queue):
                raise _wrong(f"{queue!r} is not a valid name of a queue", "small letters, digits and hyphens")
        for cidr in self.storage_cidrs:
            _require_cidr(cidr)


def _require_cidr(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise _wrong(f"storage_cidrs: {text!r} is not a network", str(error)) from error


def _wrong(summary: str, cause: str) -> InvalidConfiguration:
    return InvalidConfiguration(summary, cause, "Correct the cluster's block or its secret.")
